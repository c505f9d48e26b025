"""What the app says next takes what it said before out of L2 as well."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from fastapi import Response

from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import Node, eventually, fleet
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

STEERED: dict[str, Any] = {"middleware": {"honour_headers": True}}
FRESH = {"cache-control": "max-age=60", "etag": '"1"'}
RULE = {"no-vary-search": 'params=("utm")'}
RELOAD = {"cache-control": "no-cache"}


class Pages:
    """What all replicas answer now by the query's `number`: status, fields and content."""

    def __init__(self) -> None:
        self.said: dict[int, tuple[int, dict[str, str], bytes]] = defaultdict(lambda: (200, {**FRESH, **RULE}, b"old"))

    def routes(self, node: Node) -> None:
        """Give a replica the route."""

        @node.app.api_route("/page", methods=["GET", "HEAD"])
        async def page(number: int, utm: str = "") -> Response:
            status, headers, content = self.said[number]
            return Response(content, status, headers)


async def gone(server: Valkey, count: int = 0) -> None:
    """Wait until L2 has so many responses."""
    await eventually(lambda: len(server.client.keys("*:r")) == count, "the older copy is gone")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("query", ["", "&utm=x"])
async def test_what_is_withdrawn_is_found_in_l2_by_no_equivalent_query(
    redis_server: Valkey, method: str, query: str
) -> None:
    """It is stored there under the key of all of them."""
    pages = Pages()
    async with fleet(redis_server.url, routes=pages.routes, **STEERED) as (a, b):
        await a.ask("/page?number=1")
        await a.written()
        await b.ask("/page?number=2")
        await b.written()
        pages.said[1] = (404, {}, b"")
        await a.ask("/page?number=1" + query, method=method, headers=RELOAD)
        await gone(redis_server, 1)
        assert (await b.ask("/page?number=1")).status_code == 404
        assert_hit(await a.ask("/page?number=2"))


async def test_what_has_outgrown_l1_is_not_found_in_l2_as_it_was(redis_server: Valkey) -> None:
    """A body of any size may be held back from L2 alone: the newer one is nowhere, so the older one is, too."""
    pages = Pages()
    sizes: dict[str, Any] = {"l1_max_bytes": 64 * 1024, "max_body_bytes": 60_000}
    async with fleet(redis_server.url, routes=pages.routes, **STEERED, **sizes) as (a, b):
        await a.ask("/page?number=1")
        await a.written()
        pages.said[1] = (200, FRESH, b"x" * 60_000)
        await a.ask("/page?number=1", headers=RELOAD)
        await gone(redis_server)
        assert len((await b.ask("/page?number=1")).body) == 60_000


async def test_what_the_app_calls_stale_is_shared_no_more_by_who_has_not_seen_it(redis_server: Valkey) -> None:
    """A replica that is told so without a copy of its own lets go of that of all."""
    pages = Pages()
    pages.said[1] = (200, FRESH, b"old")
    async with fleet(redis_server.url, routes=pages.routes, **STEERED) as (a, b):
        await a.ask("/page?number=1")
        await a.written()
        pages.said[1] = (200, {"cache-control": "no-cache", "etag": '"2"'}, b"new")
        assert (await b.ask("/page?number=1", headers=RELOAD)).body == b"new"
        await gone(redis_server)
        answer = await b.ask("/page?number=1")
        assert_miss(answer)
        assert answer.body == b"new"
