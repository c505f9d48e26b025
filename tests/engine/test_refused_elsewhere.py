"""A replica refreshes its own stale page, also while another one has found that the new answer may not be shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.fleet import eventually, filled, found, of_age, replicas
from tests.helpers.http import Answer, ask
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

# What the page answers later: none of it may be stored, by either mode.
LATER: dict[str, dict[str, Any]] = {
    "a 404": {"status_code": 404},
    "a 410": {"status_code": 410},
    "a 204": {"status_code": 204},
    "no-store": {"headers": {"cache-control": "no-store"}},
    "private": {"headers": {"cache-control": "private, max-age=60"}},
    "a cookie": {"headers": {"set-cookie": "who=alice", "cache-control": "max-age=60"}},
    "everything selects": {"headers": {"vary": "*", "cache-control": "max-age=60"}},
    "too large": {"content": b"x" * 3_000_000, "headers": {"cache-control": "max-age=60"}},
}
FIRST = {"surrogate-key": "page", "cache-control": "max-age=60, stale-while-revalidate=3600"}


class Page:
    """What all replicas answer, and how often each was asked."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {"headers": FIRST}
        self.asked: Counter[str] = Counter()

    def replica(self, name: str, *, by_headers: bool) -> Callable[[HTTPCache], Any]:
        def make(cache: HTTPCache) -> Any:
            app = FastAPI()
            app.add_middleware(CacheMiddleware, cache=cache, honour_headers=by_headers)

            async def page() -> Response:
                # In a list: a text would tell the handlers of the replicas apart.
                self.asked[whose[0]] += 1
                return Response(**{"content": b"new", **self.now})

            whose = [name]
            policy = cached(ttl=60, stale_while_revalidate=3600, tags=["page"])
            app.add_api_route("/page", page, dependencies=[] if by_headers else [policy])
            return app

        return make


async def get(app: Any) -> Answer:
    return await ask(app, "/page", host="shop.test")


@pytest.mark.parametrize("by_headers", [False, True])
@pytest.mark.parametrize("later", LATER)
async def test_each_replica_finds_out_by_itself_what_has_become_of_its_page(
    redis_server: Valkey, later: str, by_headers: bool
) -> None:
    """The mark that keeps clients from waiting for each other keeps no stale page in use."""
    page = Page()
    makers = [page.replica(name, by_headers=by_headers) for name in ("one", "two")]
    async with replicas(redis_server, *makers) as ((one, cache), (two, other)):
        await filled(one, cache, "/page")
        assert await found(two, "/page")
        page.now = LATER[later]
        of_age(redis_server)
        await cache.invalidate("page", soft=True, wait="all")
        assert (await get(one)).cache.hit  # type: ignore[union-attr]
        await eventually(lambda: page.asked["one"] == 2, "the refresh of the first")
        await eventually(lambda: sum(cache.statistics().refreshes.values()), "its end")
        assert (await get(two)).cache.hit  # type: ignore[union-attr]
        await eventually(lambda: page.asked["two"] == 1, "the refresh of the second")
        await eventually(lambda: sum(other.statistics().refreshes.values()), "its end")
        assert "found" not in other.statistics().refreshes
