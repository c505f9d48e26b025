"""WebSocket routes inherit what apps, routers and includes declare: all of ours is inert there, and breaks no handshake."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, WebSocket
from fastapi.security import APIKeyHeader
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.life import uvicorn

Declare = Callable[..., tuple[FastAPI, str]]


async def shout(websocket: WebSocket) -> None:
    """Accept, and answer one message in capitals."""
    await websocket.accept()
    await websocket.send_text((await websocket.receive_text()).upper())
    await websocket.close()


def on_app(*dependencies: Any) -> tuple[FastAPI, str]:
    """Declared for the whole app."""
    app = FastAPI(dependencies=list(dependencies))
    app.websocket("/ws")(shout)
    return app, "/ws"


def on_router(*dependencies: Any) -> tuple[FastAPI, str]:
    """Declared on a router that is included."""
    app, router = FastAPI(), APIRouter(dependencies=list(dependencies))
    router.websocket("/ws")(shout)
    app.include_router(router, prefix="/r")
    return app, "/r/ws"


def on_include(*dependencies: Any) -> tuple[FastAPI, str]:
    """Declared where routers are included, one in the other."""
    app, inner, outer = FastAPI(), APIRouter(), APIRouter()
    inner.websocket("/ws")(shout)
    outer.include_router(inner, prefix="/i", dependencies=list(dependencies))
    app.include_router(outer, prefix="/o")
    return app, "/o/i/ws"


def on_route(*dependencies: Any) -> tuple[FastAPI, str]:
    """Declared on the WebSocket route itself."""
    app = FastAPI()
    app.websocket("/ws", dependencies=list(dependencies))(shout)
    return app, "/ws"


def on_mounted_app(*dependencies: Any) -> tuple[FastAPI, str]:
    """Declared for an app that is mounted."""
    app, (inner, path) = FastAPI(), on_app(*dependencies)
    app.mount("/m", inner)
    return app, f"/m{path}"


def below_another(*dependencies: Any) -> tuple[FastAPI, str]:
    """Declared as a sub-dependency of the author's own."""

    async def own(_each: None = dependencies[0]) -> None: ...

    return on_app(Depends(own))


async def collects(tags: CacheTags) -> None:
    """A dependency that tags what it reads."""
    tags.add("seen")


async def by_request(request: Request) -> str:
    """A cover that FastAPI cannot solve for a WebSocket."""
    return request.headers.get("x-tenant", "")


async def below_request(tenant: Annotated[str, Depends(by_request)]) -> str:
    """A cover that cannot be solved because of what it needs."""
    return tenant


async def by_header(x_tenant: Annotated[str, Header()]) -> str:
    """A cover that refuses whoever does not say which tenant it is."""
    return x_tenant


def says(app: FastAPI, path: str) -> None:
    """The handshake works, with and without a lifespan, and so does what follows, twice."""
    for _ in range(2):
        with TestClient(app) as client, client.websocket_connect(path) as there:
            there.send_text("hello")
            assert there.receive_text() == "HELLO"
        with TestClient(app).websocket_connect(path) as there:
            there.send_text("hello")
            assert there.receive_text() == "HELLO"


OURS = {
    "cached": cached(ttl=60, tags=["it"]),
    "invalidates": invalidates("it"),
    "tags": Depends(collects),
    "off": cached(ttl=0),
}
COVERS = {
    "partition": lambda: cached(ttl=60, partition_by=by_request),
    "guard": lambda: cached(ttl=60, guarded_by=by_request),
    "below": lambda: cached(ttl=60, partition_by=below_request),
    "scheme": lambda: cached(ttl=60, guarded_by=APIKeyHeader(name="x-key")),
    "header": lambda: cached(ttl=60, partition_by=by_header),
}
PLACES = [on_app, on_router, on_include, on_route, on_mounted_app, below_another]


@pytest.mark.parametrize("honour_headers", [False, True, None], ids=["policy", "headers", "no middleware"])
@pytest.mark.parametrize("declare", PLACES)
@pytest.mark.parametrize("which", [*OURS])
def test_what_stands_above_a_websocket_route_is_inert_there(
    which: str, declare: Declare, *, honour_headers: bool | None
) -> None:
    """In every place, in both modes and without the middleware, the handshake succeeds and messages pass."""
    app, path = declare(OURS[which])
    if honour_headers is not None:
        app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=honour_headers)
    says(app, path)


@pytest.mark.parametrize("honour_headers", [False, True], ids=["policy", "headers"])
@pytest.mark.parametrize("declare", PLACES)
@pytest.mark.parametrize("which", [*COVERS])
def test_covers_do_not_run_for_a_websocket(which: str, declare: Declare, *, honour_headers: bool) -> None:
    """A cover that takes a Request, or that would refuse, breaks no handshake."""
    app, path = declare(COVERS[which]())
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=honour_headers)
    says(app, path)


@pytest.mark.parametrize("declare", [on_app, on_router, on_include, on_route, on_mounted_app])
def test_covers_do_not_run_for_a_websocket_while_dependencies_are_overridden(declare: Declare) -> None:
    """FastAPI makes the tree anew for each request then; what is inert stays inert."""
    app, path = declare(cached(ttl=60, partition_by=by_request), invalidates("it"), Depends(collects))
    app.dependency_overrides[by_header] = by_request
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    says(app, path)


def test_a_websocket_route_that_is_added_late_is_met_before_its_first_handshake() -> None:
    """Added after the start-up, beside a first one, with a cover that takes a Request."""
    app, path = on_app(cached(ttl=60, partition_by=by_request))
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    with TestClient(app) as client:
        app.websocket("/late")(shout)
        for each in (path, "/late"):
            with client.websocket_connect(each) as there:
                there.send_text("hello")
                assert there.receive_text() == "HELLO"


def test_http_routes_beside_keep_their_covers_and_their_cache() -> None:
    """The same declaration still partitions the pages of the router, and purges them."""
    router = APIRouter(dependencies=[cached(ttl=60, partition_by=by_request, tags=["it"]), invalidates("it")])
    router.websocket("/it")(shout)

    @router.get("/it")
    async def read(tenant: Annotated[str, Depends(by_request)]) -> str:
        return tenant

    @router.put("/it")
    async def write() -> None: ...

    app = FastAPI()
    app.include_router(router)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    with TestClient(app) as client:
        for tenant in ("a", "b"):
            assert_miss(client.get("/it", headers={"x-tenant": tenant}))
        for tenant in ("a", "b"):
            hit = client.get("/it", headers={"x-tenant": tenant})
            assert_hit(hit)
            assert hit.json() == tenant
        with client.websocket_connect("/it") as there:
            there.send_text("hello")
            assert there.receive_text() == "HELLO"
        assert client.put("/it").headers["cacheinval-purge"] == "done"
        assert_miss(client.get("/it", headers={"x-tenant": "a"}))


def warnings_of(app: FastAPI, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the start-up says of WebSocket routes."""
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    with caplog.at_level(logging.WARNING, logger="fastapi_cacheinval"), TestClient(app):
        return [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()]


def test_the_start_up_log_names_a_check_that_a_websocket_route_does_not_get(caplog: pytest.LogCaptureFixture) -> None:
    """One warning: the route, the cover, and the line that would check who connects."""
    app, _ = on_app(cached(ttl=60, guarded_by=by_request))
    (line,) = warnings_of(app, caplog)
    for part in ("/ws", "by_request", "Depends(by_request)", "HTTPConnection"):
        assert part in line


def test_nothing_is_said_of_a_check_that_the_websocket_route_runs_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A guard that the route declares as well checks who connects, and one without covers is lost to nobody."""

    async def guard(connection: HTTPConnection) -> None: ...

    app, _ = on_app(cached(ttl=60, guarded_by=guard), Depends(guard), cached(ttl=60))
    assert warnings_of(app, caplog) == []


SOCKETS = """
from fastapi import FastAPI, Request, WebSocket
from fastapi_cacheinval import CacheMiddleware, cached, invalidates

async def tenant(request: Request) -> str:
    return "it"

app = FastAPI(dependencies=[cached(ttl=60, partition_by=tenant), invalidates("it")])
app.add_middleware(CacheMiddleware)

@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()
"""


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_a_real_server_switches_protocols(tmp_path: Path, lifespan: str) -> None:
    """Uvicorn answers the handshake with 101 and logs no error."""
    with uvicorn(tmp_path, SOCKETS, "--ws", "wsproto", "--lifespan", lifespan) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"GET /ws HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert connection.recv(1024).startswith(b"HTTP/1.1 101 ")
        assert "Traceback" not in server.output
