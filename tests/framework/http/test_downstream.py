"""What browsers and other caches are told is apart from how long this one keeps a response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Header, Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio


def who(x_user: str = Header(default="")) -> str:
    return x_user


def shop_with(policy: Any, sets: str | None = None, *, streamed: bool = False) -> Shop:
    """An app with one route under a policy, which may set Cache-Control itself."""
    shop = Shop(max_body_bytes=1000)

    @shop.app.get("/", dependencies=[policy])
    async def read() -> Response:
        shop.count()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        response = StreamingResponse(chunks()) if streamed else Response(b"it")
        if sets is not None:
            response.headers["cache-control"] = sets
        return response

    return shop


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({}, "no-cache"),
        ({"shared": True}, "no-cache"),
        ({"partition_by": who}, "private, no-cache"),
        ({"guarded_by": who}, "private, no-cache"),
        ({"cache_control": "public, max-age=5"}, "public, max-age=5"),
        ({"partition_by": who, "cache_control": "private, max-age=5"}, "private, max-age=5"),
    ],
)
async def test_clients_revalidate_unless_the_policy_says_otherwise(
    policy: dict[str, Any], told: str, streamed: bool
) -> None:
    """no-cache with an ETag; private too where there is a partition or a guard; on miss, hit and stream alike."""
    shop = shop_with(cached(ttl=60, **policy), streamed=streamed)
    for _ in range(3):
        assert (await shop.ask()).fields("cache-control") == [told.encode()]
    assert shop.calls == 1


@pytest.mark.parametrize(
    "sets",
    [
        "max-age=1",
        "no-cache",
        "max-age=0",
        "no-cache, max-age=0",
        "public, s-maxage=3600",
        "nonsense=",
        'x="a,b",,',
        "",
    ],
)
async def test_a_handlers_own_cache_control_passes_through(sets: str) -> None:
    """Neither its max-age nor its no-cache changes how long this cache keeps it."""
    shop = shop_with(cached(ttl=60, cache_control="max-age=9"), sets)
    assert (await shop.ask()).fields("cache-control") == [sets.encode()]
    shop.clock.tick(59)
    hit = await shop.ask()
    assert_hit(hit)
    assert hit.fields("cache-control") == [sets.encode()]


async def test_must_revalidate_forbids_stale_and_not_fresh() -> None:
    """RFC 9111 section 5.2.2.2: fresh it is served, stale it is not, by any rule."""
    shop = shop_with(cached(ttl=60, stale_while_revalidate=600, stale_if_error=600), "must-revalidate")
    await shop.ask()
    assert_hit(await shop.ask())
    shop.clock.tick(61)
    answer = await shop.ask()
    assert answer.cache is not None
    assert (answer.cache.hit, answer.cache.fwd) == (False, "stale")
    assert shop.calls == 2


async def test_a_refused_response_is_not_told_to_be_cached() -> None:
    """policy.cache_control is for what this cache keeps: a Set-Cookie response does not get it."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, cache_control="public, max-age=60")])
    async def read(response: Response) -> str:
        response.set_cookie("session", "alice")
        return "it"

    assert "public" not in (await shop.ask()).headers.get("cache-control", "")


async def test_an_error_is_not_told_to_be_cached() -> None:
    """Nor does a 404 that the policy does not list."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, cache_control="public, max-age=60")])
    async def read() -> Response:
        return Response(status_code=404)

    assert "public" not in (await shop.ask()).headers.get("cache-control", "")
