"""The cache's life beside the app's lifespan."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["Lifespan"]


class Lifespan:
    """Passes the lifespan on; starts the cache before the app, audits after it, stops the cache last.

    A configuration error fails the start-up with its message and shuts the app down again. It is
    raised only after that: raised at once, it would make servers go on without a lifespan.
    """

    def __init__(
        self, cache: HTTPCache, prepare: Callable[[Scope], CacheinvalError | None], receive: Receive, send: Send
    ) -> None:
        self._cache = cache
        self._prepare = prepare
        self._receive = receive
        self._send = send
        self._error: Exception | None = None
        self._scope: Scope = {}

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the app's whole lifespan."""
        self._scope = scope
        try:
            await self._cache.start()
        except Exception as error:
            await self._receive()
            await self._fail(error)
            raise
        try:
            await app(scope, self.receive, self.send)
        finally:
            await self._cache.stop()
        if self._error is not None:
            raise self._error

    async def _fail(self, error: Exception) -> None:
        self._error = error
        await self._send({"type": "lifespan.startup.failed", "message": str(error) or repr(error)})

    async def receive(self) -> Message:
        """What the app hears: the server's messages, or an early end after a failed audit."""
        if self._error is not None:
            return {"type": "lifespan.shutdown"}
        message = await self._receive()
        if message["type"] == "lifespan.shutdown":
            # Before the app closes what records telemetry.
            await internals_of(self._cache).lifecycle.wind_down()
        return message

    async def send(self, message: Message) -> None:
        """What the server hears."""
        if self._error is not None:
            return
        if message["type"] == "lifespan.startup.complete":
            # Here and not before: an app may add routes while it starts.
            error = self._prepare(self._scope)
            if error is not None:
                await self._fail(error)
                return
        elif message["type"] == "lifespan.shutdown.complete":
            await self._cache.stop()
        await self._send(message)
