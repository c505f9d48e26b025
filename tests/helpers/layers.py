"""Layers that a hit may not skip, as apps put them around an app, a mount or a route."""

from __future__ import annotations

from typing import Any

from starlette.responses import PlainTextResponse

__all__ = ["Names", "NeedsKey"]


class NeedsKey:
    """Answers 401 to a request without a key."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and b"x-key" not in dict(scope["headers"]):
            await PlainTextResponse("key", 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Names:
    """Adds a field that names the caller."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                who = dict(scope["headers"]).get(b"x-key", b"nobody")
                message = {**message, "headers": [*message["headers"], (b"x-user", who)]}
            await send(message)

        await self.app(scope, receive, named)
