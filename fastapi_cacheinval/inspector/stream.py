"""Server-sent events over ASGI: one task for each open page, which ends with it.

Nothing waits for a slow client: its events are bounded, and a message that it does not take in time ends the stream.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Send

from fastapi_cacheinval.inspector.feed import Feed, Listening
from fastapi_cacheinval.inspector.fields import guarded_fields
from fastapi_cacheinval.inspector.plain import as_json

__all__ = ["EventStream"]

_TICK = 0.25
_STATE_EVERY = 4
# Real seconds. A browser connects again by itself, and the guard is asked anew.
_LIFE = 300.0
_PATIENCE = 30.0
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class EventStream:
    """Streams of one inspector; `state` gives what is sent each second, and at once when `pulse` changes."""

    def __init__(
        self,
        listening: Listening,
        state: Callable[[], dict[str, Any]],
        pulse: Callable[[], object],
        *,
        life: float = _LIFE,
        patience: float = _PATIENCE,
    ) -> None:
        self._feed = Feed(listening)
        self._state = state
        self._pulse = pulse
        self._life = life
        self._patience = patience

    @property
    def full(self) -> bool:
        """Whether no further page is served now."""
        return self._feed.full

    async def serve(self, receive: Receive, send: Send) -> None:
        """Answer one request, until its client goes, the server stops, or its time is over."""
        watcher = self._feed.join()
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            async with asyncio.timeout(self._patience):
                await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *guarded_fields()]})
                await send(_body(b"retry: 1500\n\n"))
            ends = asyncio.get_running_loop().time() + self._life
            tick, pulse = 0, object()
            while not gone.done():
                parts: list[bytes] = []
                beat = self._pulse()
                if tick % _STATE_EVERY == 0 or beat != pulse:
                    parts.append(_event("state", self._state()))
                events, dropped = watcher.take()
                if events or dropped:
                    parts.append(_event("feed", {"events": events, "dropped": dropped}))
                over = asyncio.get_running_loop().time() >= ends or _server_stops()
                if over:
                    parts.append(_event("renew", {}))
                if parts:
                    async with asyncio.timeout(self._patience):
                        await send(_body(b"".join(parts), more=not over))
                if over:
                    return
                tick, pulse = tick + 1, beat
                await asyncio.wait((gone,), timeout=_TICK)
        except (TimeoutError, OSError):
            # It does not read, or has gone while something was sent.
            return
        finally:
            self._feed.leave(watcher)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _server_stops() -> bool:
    """Whether uvicorn has been told to stop: it waits for open answers, and says nothing to them."""
    try:
        handler = signal.getsignal(signal.SIGTERM)
    except ValueError:
        return False
    return bool(getattr(getattr(handler, "__self__", None), "should_exit", False))


def _event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), as_json(data))


def _body(text: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}
