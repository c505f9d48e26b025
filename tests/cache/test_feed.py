"""`cache.subscribe` and the logger of decisions: each cacheable request is told of once, as it was answered."""

# No postponed annotations: the handlers name classes and callables of their own test.

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import (
    CacheTags,
    ConfigurationError,
    Decision,
    Event,
    PurgeEvent,
    cached,
    invalidates,
)
from tests.helpers.http import Shop, until

pytestmark = pytest.mark.anyio

LOGGER = logging.getLogger("fastapi_cacheinval.decisions")


def tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


def shop_of(**options: Any) -> Shop:
    """A product that can be written, a page per tenant, a stream, and a page that fails."""
    shop = Shop(**options)

    @shop.app.get("/products/{number}", dependencies=[cached(ttl=60, tags=["product:{number}"])])
    async def product(number: int, tags: CacheTags, q: str = "", token: str = "") -> str:
        tags.add("found")
        return f"{number} {q} {token}"

    @shop.app.put("/products/{number}", dependencies=[invalidates("product:{number}")])
    async def write(number: int) -> None: ...

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=tenant)])
    async def mine(name: Annotated[str, Depends(tenant)]) -> str:
        return name

    @shop.app.get("/stream", dependencies=[cached(ttl=60, tags=["streamed"])])
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))

    @shop.app.get("/reset/{reset_token}", dependencies=[cached(ttl=60)])
    async def reset(reset_token: str) -> str:
        return "reset"

    @shop.app.get("/wrong", dependencies=[cached(ttl=60)])
    async def wrong() -> None:
        raise HTTPException(404)

    return shop


@contextmanager
def heard(shop: Shop) -> Iterator[list[Event]]:
    """What is told meanwhile."""
    events: list[Event] = []
    unsubscribe = shop.cache.subscribe(events.append)
    try:
        yield events
    finally:
        unsubscribe()


def decisions(events: list[Event]) -> list[Decision]:
    return [event for event in events if isinstance(event, Decision)]


async def test_each_request_is_told_as_its_cache_status_says() -> None:
    """Misses, hits from the front and at the route, streams and refusals: the words are those of the field."""
    shop = shop_of()
    asked = ["/products/1", "/products/1", "/stream", "/stream", "/wrong"]
    with heard(shop) as events:
        answers = [await shop.ask(path) for path in asked]
        answers += [await shop.ask("/mine", headers={"x-tenant": "acme"}) for _ in range(2)]
    told = decisions(events)
    assert [each.cache_status for each in told] == [answer.headers["cache-status"] for answer in answers]
    assert [each.result for each in told] == ["miss", "hit", "miss", "hit", "miss", "miss", "hit"]
    assert [each.route for each in told] == [
        *["GET /products/{number}"] * 2, *["GET /stream"] * 2, "GET /wrong", *["GET /mine"] * 2
    ]  # fmt: skip
    assert told[0].tags == told[1].tags == ("product:1", "found")
    assert told[2].tags == told[3].tags == ("streamed",)
    assert told[4].detail == "status"
    assert told[0].reason == "uri-miss"
    assert all(one.key == other.key and len(one.key) == 16 for one, other in zip(told[:4:2], told[1:4:2], strict=True))
    assert len({each.key for each in told}) == 4


async def test_an_uncaught_error_is_told_once() -> None:
    """A handler that raises is one decision, with the detail `failed`."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> None:
        raise RuntimeError

    with heard(shop) as events, pytest.raises(RuntimeError):
        await shop.ask("/")
    (told,) = decisions(events)
    assert (told.result, told.detail) == ("miss", "failed")


async def test_nothing_secret_is_told() -> None:
    """No value of a partition, no credential of a query or a path; what is told cannot break a line of a log."""
    shop = shop_of()
    with heard(shop) as events:
        await shop.ask("/mine", headers={"x-tenant": "very-secret"})
        await shop.ask("/products/1?q=seen&token=very-secret&token=again")
        await shop.ask("/reset/very-secret")
        await shop.ask("/products/1%0Avery")
        await shop.ask("/products/1\nINFO forged")
    told = repr(events)
    assert "very-secret" not in told
    assert "again" not in told
    paths = [each.path for each in decisions(events)]
    assert "/products/1?q=seen&token=***&token=***" in paths
    assert "/reset/{reset_token}" in paths
    assert not any("\n" in path for path in paths)


async def test_who_listens_is_told_of_front_hits_and_nobody_else_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way is left while somebody listens, and taken again afterwards."""
    shop = shop_of()
    await shop.ask("/products/1")
    made: list[Any] = []
    monkeypatch.setattr(shop.cache._core.feed, "decided", made.append)
    await shop.ask("/products/1")
    assert made == []
    with heard(shop):
        await shop.ask("/products/1")
    assert len(made) == 1
    await shop.ask("/products/1")
    assert len(made) == 1


async def test_the_logger_has_a_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG each request has one line, front hits included; above it there is none."""
    shop = shop_of()
    with caplog.at_level(logging.INFO, LOGGER.name):
        await shop.ask("/products/1")
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        for _ in range(2):
            await shop.ask("/products/1?token=very-secret")
    # The logger is off again: the next look notices.
    await shop.ask("/products/1")
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
    assert len(lines) == 2
    key = decisions_of(caplog)[0].key
    assert lines[1] == (f"route='GET /products/{{number}}' result=hit reason=- detail=- key={key} tags=product:1,found")


def decisions_of(caplog: pytest.LogCaptureFixture) -> list[Decision]:
    found = [vars(record).get("cacheinval.decision") for record in caplog.records]
    return [each for each in found if isinstance(each, Decision)]


async def test_very_many_tags_make_no_long_line(caplog: pytest.LogCaptureFixture) -> None:
    """A line names ten tags, and how many more there are; what subscribers get has all."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(tags: CacheTags) -> str:
        tags.add(*(f"tag:{number}" for number in range(500)))
        return ""

    with caplog.at_level(logging.DEBUG, LOGGER.name):
        await shop.ask("/")
    (told,) = decisions_of(caplog)
    assert len(told.tags) == 500
    assert next(r.getMessage() for r in caplog.records if r.name == LOGGER.name).endswith("tag:9,+490")


async def test_purges_are_told_with_who_made_them() -> None:
    """A mutation's purge names its route; one by hand names nobody."""
    shop = shop_of()
    await shop.ask("/products/1")
    with heard(shop) as events:
        await shop.ask("/products/1", method="PUT")
        await shop.cache.invalidate("by-hand", soft=True)
        await shop.cache.clear()
    made, by_hand, everything = [event for event in events if isinstance(event, PurgeEvent)]
    assert (made.by, made.tags, made.own, made.soft) == ("PUT /products/{number}", ("product:1",), True, False)
    assert made.paths == ("/products/1",)
    assert (by_hand.by, by_hand.tags, by_hand.soft) == ("", ("by-hand",), True)
    assert everything.everything
    assert [each.seq for each in (made, by_hand, everything)] == [1, 2, 3]


async def test_stale_answers_are_told_and_refreshes_are_not_requests() -> None:
    """A stale answer is one decision; its refresh is none."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=60)])
    async def read() -> int:
        return shop.count()

    await shop.ask("/")
    shop.clock.tick(90)
    with heard(shop) as events:
        await shop.ask("/")
        await shop.refreshed()
    (told,) = decisions(events)
    assert (told.result, told.ttl, told.age) == ("stale", -30, 90)


async def test_by_headers_requests_are_told_with_their_route() -> None:
    """Under `honour_headers` too, with the template of the route that answered."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/page/{number}")
    async def page(number: int) -> str:
        return str(number)

    with heard(shop) as events:
        for _ in range(2):
            await shop.ask("/page/1")
    assert {each.route for each in decisions(events)} == {"GET /page/{number}"}
    assert all(each.key for each in decisions(events))


async def test_the_kill_switch_is_told() -> None:
    """While the cache is off, each request for a cached route says so."""
    shop = shop_of()
    shop.cache.enabled = False
    with heard(shop) as events:
        await shop.ask("/products/1")
    (told,) = decisions(events)
    assert (told.result, told.detail) == ("bypass", "disabled")


async def test_a_subscriber_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The request is answered, the next subscriber is told, and the trouble is logged once."""
    shop = shop_of()

    def broken(event: Event) -> None:
        raise ValueError(event)

    unsubscribe = shop.cache.subscribe(broken)
    with heard(shop) as events:
        for _ in range(3):
            assert (await shop.ask("/products/1")).status_code == 200
    unsubscribe()
    assert len(decisions(events)) == 3
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1


async def test_who_has_left_is_told_nothing() -> None:
    """Leaving twice is harmless, and takes off one of two equal subscriptions."""
    shop = shop_of()
    events: list[Event] = []
    first, second = shop.cache.subscribe(events.append), shop.cache.subscribe(events.append)
    first()
    first()
    await shop.ask("/products/1")
    assert len(events) == 1
    second()
    await shop.ask("/products/1")
    assert len(events) == 1
    with pytest.raises(ConfigurationError, match="subscriber"):
        shop.cache.subscribe(None)  # type: ignore[arg-type]


async def test_collapsed_requests_are_told() -> None:
    """Of two at once, one is a miss and one collapsed."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        await until(lambda: shop.cache.statistics().waiting == 1, "another to wait")
        return ""

    with heard(shop) as events:
        calls = [shop.call("/") for _ in range(2)]
        for call in calls:
            await call.answer()
    assert sorted(each.result for each in decisions(events)) == ["collapsed", "miss"]
