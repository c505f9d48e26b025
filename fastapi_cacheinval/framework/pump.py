"""Sending to a client beside the work that makes what is sent."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import Message, Send

from fastapi_cacheinval.engine.body_budget import Reservation

__all__ = ["Pump"]


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
                self._send = _to_nobody
            except Exception as error:  # noqa: BLE001  # told to the app by `drained`
                self._error = error
                self._send = _to_nobody
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


async def _to_nobody(message: Message) -> None:
    """Where messages go for a client that is gone."""
