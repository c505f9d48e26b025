"""Very many tags of one request or one purge hold up nobody, and nothing is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheTags, HTTPCache, add_tags, cached, purge_with_request
from fastapi_cacheinval.core.tag_limits import MOST_PURGE_BYTES, MOST_PURGE_TAGS, MOST_TAGS
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.fleet import eventually
from tests.helpers.mutations import Shop, ask
from tests.helpers.pauses import LONGEST, longest_pause

pytestmark = pytest.mark.anyio

MANY = [f"row:{number}" for number in range(MOST_PURGE_TAGS + 1)]


def _shop() -> Shop:
    shop = Shop()

    @shop.app.get("/page", dependencies=[cached(ttl=60, tags=["page"])])
    async def page() -> int:
        return shop.read()

    return shop


WAYS = ["by hand", "soft", "deliver", "soon", "tags.add", "add_tags", "surrogate-key", "purge_with_request"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_purge_of_more_than_a_hundred_thousand_tags_is_one_of_everything(way: str) -> None:
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
            await eventually(lambda: receipts, "the purge in a task")
        else:
            await shop.put("/write")

    await shop.get("/page")
    with capture_invalidations(shop.cache) as receipts:
        await purge()
    assert [(receipt.everything, receipt.tags, receipt.soft) for receipt in receipts] == [(True, (), way == "soft")]
    assert_miss(await shop.get("/page"))
    assert len(shop.cache._core.engine.replica.cells) <= 2


@pytest.mark.parametrize("way", ["by hand", "soft", "deliver", "soon"])
async def test_a_hundred_thousand_by_hand_are_purged_one_by_one(way: str) -> None:
    """It is one purge with one receipt, and what does not carry one of them stays."""
    shop = _shop()
    await shop.get("/page")
    most = MANY[:MOST_PURGE_TAGS]
    with capture_invalidations(shop.cache) as receipts:
        if way == "deliver":
            await shop.cache.deliver(*most)
        elif way == "soon":
            shop.cache.invalidate_soon(*most)
            await eventually(lambda: receipts, "the purge in a task")
        else:
            await shop.cache.invalidate(*most, soft=way == "soft")
    (receipt,) = receipts
    assert (receipt.everything, receipt.tags, receipt.soft) == (False, tuple(most), way == "soft")
    assert shop.cache.statistics().purges["published"] == 1
    assert shop.cache.statistics().applied == receipt.seq
    assert_hit(await shop.get("/page"))


async def test_as_many_as_are_allowed_in_one_request_are_purged_one_by_one() -> None:
    """What does not carry one of them stays."""
    shop = _shop()

    @shop.app.put("/write")
    async def write(tags: CacheTags) -> None:
        tags.add(*MANY[: MOST_TAGS - 1])

    await shop.get("/page")
    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/write")
    assert [receipt.everything for receipt in receipts] == [False]
    assert_hit(await shop.get("/page"))


async def test_a_purge_in_a_task_is_obeyed_at_once_however_large() -> None:
    """Until it is written nothing is served that it may name."""
    shop = _shop()
    await shop.get("/page")
    shop.cache.invalidate_soon(*MANY[: MOST_PURGE_TAGS - 1], "page")
    assert_miss(await shop.get("/page"))


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


@pytest.mark.parametrize("what", ["purge", "purge of everything", "mutation", "fill"])
async def test_other_requests_wait_for_no_more_than_some_milliseconds(what: str) -> None:
    """However many tags there are. Before: 0.25 to 0.6 seconds of the loop in one piece."""
    shop = _shop()

    @shop.app.put("/write")
    async def write(tags: CacheTags) -> None:
        tags.add(*MANY)

    @shop.app.get("/big", dependencies=[cached(ttl=60)])
    async def big(tags: CacheTags) -> None:
        tags.add(*MANY)

    await shop.get("/page")
    work: dict[str, Callable[[], Awaitable[Any]]] = {
        "purge": lambda: shop.cache.invalidate(*MANY[:MOST_PURGE_TAGS]),
        "purge of everything": lambda: shop.cache.invalidate(*MANY),
        "mutation": lambda: shop.put("/write"),
        "fill": lambda: ask(shop.app, "GET", "/big"),
    }
    assert min([await longest_pause(work[what]) for _ in range(3)]) < (LONGEST if "purge" in what else 0.05)


class _Counted(tuple[str, ...]):  # noqa: SLOT001 - it counts
    looked_at = 0

    def __getitem__(self, part: Any) -> Any:
        found = tuple.__getitem__(self, part)
        self.looked_at += len(found)
        return found


@pytest.mark.parametrize("tag", ["t", ""])
async def test_of_millions_of_tags_by_hand_no_more_are_looked_at_than_may_be(tag: str) -> None:
    """The time is bounded whatever a call is given."""
    tags = _Counted((f"{tag}{number}" for number in range(200_000)) if tag else [""] * 10_000_000)
    assert await HTTPCache()._core.named(tags) == (ALL,)
    assert tags.looked_at < (MOST_PURGE_TAGS if tag else MOST_PURGE_BYTES) + 2_001
