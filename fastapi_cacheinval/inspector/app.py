"""`Inspector`: an ASGI app that shows one cache, behind a guard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.inspector.changes import Changes
from fastapi_cacheinval.inspector.events import listening_to
from fastapi_cacheinval.inspector.explaining import Explaining
from fastapi_cacheinval.inspector.fields import secured
from fastapi_cacheinval.inspector.guard import Door, Guard, refuse_options, why_not_local
from fastapi_cacheinval.inspector.pages import nothing, show_file, show_page
from fastapi_cacheinval.inspector.plain import Told
from fastapi_cacheinval.inspector.reads import Reads
from fastapi_cacheinval.inspector.replicas import Replicas
from fastapi_cacheinval.inspector.routes import Routes
from fastapi_cacheinval.inspector.stream import EventStream

__all__ = ["Inspector"]

_EVENTS = "/api/events"

Handler = Callable[[Request], Awaitable[Response]]


class Inspector:
    """A page that shows a cache while it works, to be mounted: `app.mount("/_cache", Inspector(cache, guard=...))`.

    - `guard` is asked before every request, the page's own files included. It is a function of the `Request`, or any
      FastAPI dependency, such as the one that a route names in `guarded_by`; plain or `async`. It refuses by raising,
      as with `HTTPException`, or by returning something false that is not None. With `yield` it ends before the answer.
    - `debug=True` lets it do without a guard, on a developer's machine: then only requests from this machine, to a
      loopback address and by a name such as `localhost`, are answered, and none that a proxy has passed on.

    It shows paths, tags, counts and times, and nothing of a body, a header field or a partition's value. It changes
    nothing but by a purge, which needs the token of its page. Raises `ConfigurationError` for a cache that is none, a
    guard that cannot be called, and for none without `debug`.
    """

    def __init__(self, cache: HTTPCache, *, guard: Guard | None = None, debug: bool = False) -> None:
        refuse_options(cache, guard, debug)
        self._door = None if guard is None else Door(guard)
        self._cache = cache
        self._routes = routes = Routes(cache)
        reads, changes, replicas = Reads(cache), Changes(cache), Replicas(cache)
        self._stream = EventStream(listening_to(cache), reads.state, reads.pulse)
        self._handlers: dict[str, tuple[str, Handler]] = {
            "/": ("GET", show_page),
            "/api/state": ("GET", reads.show_state),
            "/api/routes": ("GET", routes.show),
            "/api/contents": ("GET", reads.show_contents),
            "/api/search": ("GET", reads.search),
            "/api/replicas": ("GET", replicas.show),
            "/api/explain": ("GET", Explaining(cache).show),
            "/api/purge": ("POST", changes.purge),
        }

    def __repr__(self) -> str:
        return f"<Inspector of {self._cache!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a web socket is refused."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        elif (refused := await self._refused(scope)) is not None:
            await secured(refused)(scope, receive, send)
        elif _below(scope) == _EVENTS and scope["method"] == "GET":
            await self._events(scope, receive, send)
        else:
            response = await self._answer(Request(scope, receive))
            await secured(response)(scope, receive, send)

    async def _refused(self, scope: Scope) -> Response | None:
        if self._door is not None:
            return await self._door.refusal(scope)
        if why := why_not_local(scope):
            return PlainTextResponse(
                f"The inspector has no guard, so it answers this machine alone, and {why}. Give it one: "
                "Inspector(cache, guard=...).",
                403,
            )
        return None

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stream.full:
            busy = Told({"error": "Too many pages are open."}, 503, {"retry-after": "5"})
            await secured(busy)(scope, receive, send)
            return
        await self._stream.serve(receive, send)

    async def _answer(self, request: Request) -> Response:
        path, method = _below(request.scope), request.method
        if path is None:
            # Relative, so that it holds behind a proxy that takes a prefix off.
            return Response(status_code=307, headers={"location": f"{request.url.path.rpartition('/')[2]}/"})
        known = self._handlers.get(path)
        if known is None:
            return show_file(path) if method in ("GET", "HEAD") else nothing()
        allowed, handler = known
        if method != allowed and (method, allowed) != ("HEAD", "GET"):
            return Told({"error": f"It answers {allowed}."}, 405, {"allow": allowed})
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=400)


def _below(scope: Scope) -> str | None:
    """The path below the mount; None for the mount itself without a slash at its end.

    Some stand in front that take a prefix off the path and put it into the root path all the same.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    for prefix in (root, root.removeprefix(scope.get("app_root_path", "").rstrip("/"))):
        if prefix and path == prefix:
            return None
        if prefix and path.startswith(f"{prefix}/"):
            return path[len(prefix) :]
    return path or "/"


async def _live(receive: Receive, send: Send) -> None:
    """Answer a server's lifespan, where the inspector is an app of its own."""
    while True:
        message: Any = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
