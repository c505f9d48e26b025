"""Every guard stands before every mode: none can be gone round by the choice of a mode.

The rows are what the dispatcher has. A guard or a mode that is added without a scenario here fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.token import Token
from fastapi_cacheinval.framework.guards import GUARDS
from fastapi_cacheinval.framework.modes import MODES
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.http import ask
from tests.helpers.trouble import says_disconnected
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

BOUND = 9.0
# How each mode is chosen, and a page that it caches: routes of one app, told apart by what stores them.
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "ByPolicy": ({}, "/items/a"),
    "ByHeaders": ({"honour_headers": True}, "/page"),
}


def routes(node: Node) -> None:
    """A page that its headers steer, and what changes it."""

    @node.app.get("/page")
    async def page() -> Response:
        return Response(str(await node.data.read(node.number, "a")), headers={"cache-control": "max-age=60"})

    @node.app.put("/page")
    async def change() -> None:
        node.data.versions["a"] += 1


@asynccontextmanager
async def one(server: Valkey, mode: str, **options: Any) -> AsyncIterator[tuple[Node, str, Any]]:
    """A replica in one mode, its page, and what stands between it and Redis; its clock stands."""
    middleware, path = OPTIONS[mode]
    given = {"staleness_bound": BOUND, "redis_timeout": 0.5, "middleware": middleware, "routes": routes, **options}
    with tcp_proxy(server.port) as proxy:
        async with fleet(proxy.url, 1, clocks=True, **given) as (node,):
            yield node, path, proxy
            proxy.heal()


async def disconnected(server: Valkey, mode: str) -> None:
    """What cannot be purged is refused before its handler runs; reads go on."""
    async with one(server, mode, mutations_when_disconnected="refuse") as (node, path, proxy):
        assert (await node.ask(path, method="PUT")).status_code == 200
        proxy.refuse()
        proxy.reset()
        node.clock.tick(BOUND + 1)
        await eventually(lambda: not node.statistics.connected, "the loss")
        answer = await node.ask(path, method="PUT")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert says_disconnected(answer)
        assert node.data.versions["a"] == 1
        assert (await node.ask(path)).status_code == 200


async def head_of_get(server: Valkey, mode: str) -> None:
    """A HEAD is answered for a GET that has a policy and no HEAD, also while something else closes the cache."""
    async with one(server, mode, read_your_writes=True) as (node, _, _):
        whole = await node.ask()
        for closed in (False, True):
            node.cache.enabled = not closed
            head = await node.ask(method="HEAD")
            assert (head.status_code, head.body) == (200, b"")
            assert head.headers["content-type"] == whole.headers["content-type"]


async def switched_off(server: Valkey, mode: str) -> None:
    """Nothing is answered from the cache, and nothing is stored."""
    async with one(server, mode) as (node, path, _):
        await node.ask(path)
        assert_hit(await node.ask(path))
        node.cache.enabled = False
        for method in ("GET", "HEAD"):
            answer = await node.ask(path, method=method)
            assert answer.cache is None or answer.cache.detail == "disabled"
        assert node.data.forwards >= 2


async def behind(server: Valkey, mode: str) -> None:
    """A client that has read further than this replica can is answered by the app, and nothing of it is stored."""
    async with one(server, mode, read_your_writes=True) as (node, path, proxy):
        await node.ask(path)
        replica = internals_of(node.cache).engine.replica
        ahead = Token(replica.term, replica.applied + 1).serialise()
        proxy.black_hole()
        for method in ("GET", "HEAD"):
            answer = await node.ask(path, method=method, headers={"cacheinval-token": ahead})
            if answer.status_code == 200:
                assert answer.cache is not None
                assert (answer.cache.detail, answer.cache.stored) == ("behind", False)
        assert node.data.forwards == 2 + (mode == "ByPolicy")


SCENARIOS: dict[str, Callable[[Valkey, str], Awaitable[None]]] = {
    each.__name__: each for each in (disconnected, head_of_get, switched_off, behind)
}


@pytest.mark.parametrize("mode", [mode.__name__ for mode in MODES])
@pytest.mark.parametrize("guard", [guard.__name__ for guard in GUARDS])
async def test_no_mode_goes_round_a_guard(redis_server: Valkey, guard: str, mode: str) -> None:
    """Each guard of the dispatcher holds in each of its modes."""
    await SCENARIOS[guard](redis_server, mode)


@pytest.mark.parametrize("mode", [mode.__name__ for mode in MODES])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
async def test_an_app_at_fault_answers_nothing(mode: str, method: str) -> None:
    """An app that the audit refuses gets no request through, whatever its method and mode."""
    app = FastAPI()

    @app.get("/", dependencies=[cached(ttl=60)])
    async def read(body: dict[str, int]) -> None:
        raise AssertionError("it must not run")

    answer = await ask(CacheMiddleware(app, cache=HTTPCache(), **OPTIONS[mode][0]), method=method)
    assert answer.status_code == 500
