"""Bodies that come in pieces: sent beside the fill that keeps them, and kept when they have come to their end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from zlib import crc32

from starlette.types import Message, Send

from fastapi_cacheinval.engine.body_budget import Reservation
from fastapi_cacheinval.framework.responding import nowhere

__all__ = ["Pieces", "Pump", "UnannouncedEnd"]

# Real seconds after which a body whose length nobody has announced is taken for whole although the app goes on, with a
# background task.
_TAKEN_FOR_WHOLE = 0.1


class Pump:
    """Sends messages in order from a task of its own; what is put is bounded by who puts it, in `held`.

    A client that has gone away is no error of the app's: what is left for it is dropped.
    """

    def __init__(self, send: Send, held: Reservation) -> None:
        self._send = send
        self._held = held
        self._queue: deque[Message] = deque()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        # Whether the server has said that nobody takes what is sent.
        self.gone = False

    async def put(self, *messages: Message) -> None:
        """Send messages after those before them; back when what the client takes at once has gone."""
        self._queue += messages
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        # An app that does not wait for anything between its chunks would hold them all back.
        await asyncio.sleep(0)

    async def _run(self) -> None:
        while self._queue:
            message = self._queue.popleft()
            try:
                await self._send(message)
            except OSError:
                self.gone = True
                self._send = nowhere
            except Exception as error:  # noqa: BLE001  # told to the app by `drained`
                self._error = error
                self._send = nowhere
            self._held.shrink(len(message.get("body", b"")))

    async def drained(self) -> None:
        """Wait until all that was put is sent; raises what sending raised."""
        while self._task is not None and (self._queue or not self._task.done()):
            await self._task
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Send no more."""
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()


class Pieces:
    """What is remembered of a stream that nobody keeps: its first piece, its length and its checksum so far."""

    def __init__(self) -> None:
        self._first = b""
        self._checksum = 0
        self.length = 0

    def add(self, message: Message) -> None:
        """One message of it."""
        body = message.get("body", b"")
        self._first = self._first or bytes(body)
        self._checksum = crc32(body, self._checksum)
        self.length += len(body)

    def may_be(self, other: Pieces, *, ended: bool) -> bool:
        """Whether all that can be told is as in the other, which is as far as this one or further."""
        if ended or self.length >= other.length:
            return (self.length, self._checksum) == (other.length, other._checksum)
        known = min(len(self._first), len(other._first))
        return self._first[:known] == other._first[:known]


class UnannouncedEnd:
    """Waits for the app to return, or to go on for a while, before a body of unknown length is taken for whole.

    Until then the app may raise: what it has ended was then half of the body.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # What is called when the body is whole; None before its end, and once that is settled.
        self._keep: Callable[[], None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, keep: Callable[[], None]) -> None:
        """The app has sent its last message; `keep` is called when the body is whole. Only the first call counts."""
        if self._alarm is None:
            self._keep = keep
            self._alarm = self._loop.call_later(_TAKEN_FOR_WHOLE, self._take_for_whole, context=Context())

    def returned(self) -> None:
        """The app has returned: what it has ended is whole."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._take_for_whole()

    def raised(self) -> bool:
        """The app has raised; whether the body had been taken for whole by then."""
        if self._alarm is None:
            return False
        self._alarm.cancel()
        keep, self._keep = self._keep, None
        return keep is None

    def _take_for_whole(self) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep()
