"""The cache's life beside the app's lifespan."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["Lifespan"]


class Lifespan:
    """Passes the lifespan on; starts the cache before the app, audits after it, stops the cache last.

    A configuration error fails the start-up with its message and shuts the app down again: raising
    would make servers go on without a lifespan.
    """

    def __init__(
        self, cache: HTTPCache, prepare: Callable[[Scope], CacheinvalError | None], receive: Receive, send: Send
    ) -> None:
        self._cache = cache
        self._prepare = prepare
        self._receive = receive
        self._send = send
        self._failed = False
        self._scope: Scope = {}

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the app's whole lifespan."""
        self._scope = scope
        await self._cache.start()
        try:
            await app(scope, self.receive, self.send)
        finally:
            await self._cache.stop()

    async def receive(self) -> Message:
        """What the app hears: the server's messages, or an early end after a failed audit."""
        if self._failed:
            return {"type": "lifespan.shutdown"}
        return await self._receive()

    async def send(self, message: Message) -> None:
        """What the server hears."""
        if self._failed:
            return
        if message["type"] == "lifespan.startup.complete":
            # Here and not before: an app may add routes while it starts.
            error = self._prepare(self._scope)
            if error is not None:
                self._failed = True
                await self._send({"type": "lifespan.startup.failed", "message": str(error)})
                return
        elif message["type"] == "lifespan.shutdown.complete":
            await self._cache.stop()
        await self._send(message)
