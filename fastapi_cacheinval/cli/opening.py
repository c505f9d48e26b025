"""The cache of an app that is not served: its routes are read, its cache is started, and its lifespan does not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.framework.lifespan import Lifespan
from fastapi_cacheinval.middleware import CacheMiddleware
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.outer_stack import outer_stack_of

__all__ = ["opened"]


@asynccontextmanager
async def opened(app: Any, name: str) -> AsyncGenerator[tuple[HTTPCache, Internals]]:
    """The cache of an app for a block, as a replica of its own; raises `CliError` for an app that would not start."""
    middleware, application = _middleware(app, name)
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}, "app": application}
    prepare = middleware._parts.prepare  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what its own lifespan calls
    lifespan = Lifespan(middleware.cache, prepare, incoming.get, outgoing.put)
    running = asyncio.ensure_future(lifespan.run(_nothing, scope))
    try:
        incoming.put_nowait({"type": "lifespan.startup"})
        said = await outgoing.get()
        if said["type"] != "lifespan.startup.complete":
            raise CliError(Exit.APP, f"{name} does not start: {said.get('message', '')}")
        yield middleware.cache, internals_of(middleware.cache)
    finally:
        incoming.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait((running,))
        # Looked at: what it raised has been said.
        running.exception()


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app whose lifespan does nothing, in the place of the one whose routes are read."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _middleware(app: Any, name: str) -> tuple[CacheMiddleware, Any]:
    application: Any = middleware_stack_of(app).app
    if isinstance(application, Starlette) and application.middleware_stack is None:
        # As its first request would.
        application.middleware_stack = application.build_middleware_stack()
    found: Any = outer_stack_of(app, CacheMiddleware).found
    if not isinstance(found, CacheMiddleware):
        raise CliError(
            Exit.APP,
            f"{name} leads to no CacheMiddleware: name what the server is given, and add the middleware to it with "
            "app.add_middleware(CacheMiddleware, cache=cache).",
        )
    return found, application
