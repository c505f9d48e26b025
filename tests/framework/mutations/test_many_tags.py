"""A hundred thousand tags of one request or one purge hold up nobody, and nothing is missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheTags, add_tags, cached, purge_with_request
from fastapi_cacheinval.core.tag_limits import MOST_TAGS
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.mutations import Shop, ask

pytestmark = pytest.mark.anyio

MANY = [f"row:{number}" for number in range(100_000)]


def _shop() -> Shop:
    shop = Shop()

    @shop.app.get("/page", dependencies=[cached(ttl=60, tags=["page"])])
    async def page() -> int:
        return shop.read()

    return shop


async def longest_pause(work: Callable[[], Awaitable[Any]]) -> float:
    """The longest time in processor seconds for which other tasks of the loop had to wait."""
    pauses: list[float] = []
    ended = False

    async def watch() -> None:
        last = time.process_time()
        while not ended:
            await asyncio.sleep(0)
            now = time.process_time()
            pauses.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await work()
    ended = True
    await watching
    return max(pauses)


WAYS = ["by hand", "soft", "deliver", "soon", "tags.add", "add_tags", "surrogate-key", "purge_with_request"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_purge_of_a_hundred_thousand_tags_is_one_of_everything(way: str) -> None:
    """By every way to purge; receipts and listeners are told so."""
    shop = _shop()

    @shop.app.put("/write")
    async def write(tags: CacheTags) -> Response:
        response = Response()
        if way == "tags.add":
            tags.add(*MANY)
        elif way == "add_tags":
            for tag in MANY:
                add_tags(tag)
        elif way == "surrogate-key":
            response.headers["surrogate-key"] = " ".join(MANY)
        else:
            assert purge_with_request(*MANY)
        return response

    async def purge() -> None:
        if way in ("by hand", "soft"):
            await shop.cache.invalidate(*MANY, soft=way == "soft")
        elif way == "deliver":
            await shop.cache.deliver(*MANY)
        elif way == "soon":
            shop.cache.invalidate_soon(*MANY)
            await asyncio.sleep(0)
        else:
            await shop.put("/write")

    await shop.get("/page")
    with capture_invalidations(shop.cache) as receipts:
        await purge()
    assert [(receipt.everything, receipt.tags, receipt.soft) for receipt in receipts] == [(True, (), way == "soft")]
    assert_miss(await shop.get("/page"))
    assert len(shop.cache._core.engine.replica.cells) <= 2


async def test_as_many_as_are_allowed_are_purged_one_by_one() -> None:
    """What does not carry one of them stays."""
    shop = _shop()
    await shop.get("/page")
    receipt = await shop.cache.invalidate(*MANY[:MOST_TAGS])
    assert (receipt.everything, len(receipt.tags)) == (False, MOST_TAGS)
    assert_hit(await shop.get("/page"))


@pytest.mark.parametrize("honour_headers", [False, True])
@pytest.mark.parametrize("way", ["tags.add", "surrogate-key", "stream", "both"])
async def test_a_response_with_more_tags_than_that_is_not_stored(way: str, honour_headers: bool) -> None:
    """It goes out as the app made it, and says why it is not kept."""
    shop = Shop(honour_headers=honour_headers)
    declared = [] if honour_headers else [cached(ttl=60)]

    @shop.app.get("/big", dependencies=declared)
    async def big() -> Response:
        response: Response = Response(b"big", headers={"cache-control": "max-age=60"})
        shop.read()
        if way in ("tags.add", "both"):
            add_tags(*MANY[: 5_000 if way == "both" else None])
        if way in ("surrogate-key", "both"):
            response.headers["surrogate-key"] = " ".join(MANY[: 5_000 if way == "both" else None])
        if way == "stream":

            async def chunks() -> AsyncIterator[bytes]:
                yield b"b"
                add_tags(*MANY)
                yield b"ig"

            response = StreamingResponse(chunks(), headers={"cache-control": "max-age=60"})
        return response

    for _ in range(2):
        answer = await shop.get("/big")
        assert answer.body == b"big"
    assert shop.reads == 2
    if way != "stream":
        assert "detail=too-many-tags" in answer.headers["cache-status"]
        assert ("surrogate-key" in answer.headers) is (way != "tags.add")


@pytest.mark.parametrize("what", ["purge", "mutation", "fill"])
async def test_other_requests_wait_for_no_more_than_some_milliseconds(what: str) -> None:
    """Made before the limits: 0.25 to 0.6 seconds of the loop in one piece."""
    shop = _shop()

    @shop.app.put("/write")
    async def write(tags: CacheTags) -> None:
        tags.add(*MANY)

    @shop.app.get("/big", dependencies=[cached(ttl=60)])
    async def big(tags: CacheTags) -> None:
        tags.add(*MANY)

    await shop.get("/page")
    work: dict[str, Callable[[], Awaitable[Any]]] = {
        "purge": lambda: shop.cache.invalidate(*MANY),
        "mutation": lambda: shop.put("/write"),
        "fill": lambda: ask(shop.app, "GET", "/big"),
    }
    assert min([await longest_pause(work[what]) for _ in range(3)]) < 0.05
