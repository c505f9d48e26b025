"""The calls of one event loop to one server: a few at a time, the others in the order of their coming."""

from __future__ import annotations

import asyncio
from collections import deque

from fastapi_cacheinval.connections.away import Away

__all__ = ["MOST_CONNECTIONS", "Lane"]

MOST_CONNECTIONS = 16
"""Calls to one server at the same time, each on a connection of its own."""


class Lane:
    """At most `most` calls at a time; `patience` is how many seconds a call waits for its turn.

    With `rest`, all calls are refused for so many seconds after an outage, and then all but one, until it is answered.

    `used` tells whether a connection may be an old one: since the connections were last dropped, one has answered.
    """

    def __init__(self, most: int, *, patience: float, rest: float) -> None:
        self.used = False
        self._free = most
        self._patience = patience
        self._rest = rest
        self._waiting: deque[asyncio.Future[None]] = deque()
        # Why there are no turns, until when, and whether somebody tries.
        self._reason = ""
        self._out_until = 0.0
        self._trying = False

    def __repr__(self) -> str:
        return f"<Lane with {len(self._waiting)} waiting{f', out: {self._reason}' if self._reason else ''}>"

    async def take(self) -> bool:
        """Wait for a turn, which has to be given back; raises `Away` where there is none to be had.

        Gives whether it is the one call that tries a server that was out.
        """
        trying = bool(self._reason)
        if trying:
            if self._trying or asyncio.get_running_loop().time() < self._out_until:
                raise Away(self._reason)
            self._trying = True
        if self._free:
            self._free -= 1
            return trying
        try:
            await self._wait()
        except BaseException:
            self._trying = self._trying and not trying
            raise
        return trying

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It came in the same moment.
                self.give_back()
            turn.cancel()
            if isinstance(error, TimeoutError):
                raise Away("no connection was free in time") from error
            raise

    def give_back(self, *, trying: bool = False) -> None:
        """A turn has come to its end, and is the next one's; `trying` is what it was taken with."""
        if trying:
            self._trying = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def answered(self) -> None:
        """The server has answered."""
        self.used = True
        self._reason = ""

    def out(self, reason: str) -> None:
        """The server is out of reach: those who wait are told at once."""
        self.used = False
        if self._rest:
            self._reason = reason
            self._out_until = asyncio.get_running_loop().time() + self._rest
        waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            if not turn.done():
                turn.set_exception(Away(reason))
