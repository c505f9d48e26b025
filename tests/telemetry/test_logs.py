"""What is logged: little, under the package's name, and never for each request."""

from __future__ import annotations

import logging

import pytest

from fastapi_cacheinval import CachePolicy, HTTPCache, cached
from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.engine.log_touch import Touch
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.fleet import eventually, fleet
from tests.helpers.http import Shop
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The records that somebody sees who has not asked for DEBUG."""
    return [each for each in caplog.records if each.levelno > logging.DEBUG and "cacheinval" in each.name]


async def test_a_flapping_redis_logs_once_per_change_of_state(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Three outages are six lines, whatever was asked and changed meanwhile.

    The second of each says how long it was, what was delivered and what was given up; a queued purge is one for DEBUG.
    """
    with caplog.at_level(logging.DEBUG):
        async with fleet(redis_server.url, 1, staleness_bound=0.6) as (node,):
            # The first request has the start said.
            await node.ask()
            caplog.clear()
            for outages in range(1, 4):
                redis_server.kill()
                await node.out_of_touch()
                for _ in range(20):
                    await node.ask()
                    assert (await node.ask(method="PUT")).headers["cacheinval-purge"] == "queued"
                redis_server.restart()
                await node.in_touch()
                await eventually(lambda: len(ours(caplog)) == 2 * outages, "the record of the return")  # noqa: B023
            told = ours(caplog)
            queued = [
                each for each in caplog.records if "is queued" in each.getMessage() and "tag" in each.getMessage()
            ]
    assert [each.name for each in told] == ["fastapi_cacheinval.bus"] * 6
    assert [each.__dict__["cacheinval.connected"] for each in told] == [False, True] * 3
    for returned in told[1::2]:
        # Those of the last minute are written again in the new term.
        assert returned.__dict__["cacheinval.delivered"] >= 20
        assert returned.__dict__["cacheinval.seconds"] >= 0.6
        assert returned.__dict__["cacheinval.reset"] is True
    assert {each.levelno for each in queued} == {logging.DEBUG}
    assert len(queued) >= 60


async def test_a_reset_without_an_outage_is_a_warning(redis_server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """As it is with one: the level does not depend on whether a call happened to fail."""
    async with fleet(redis_server.url, 1, staleness_bound=0.6) as (node,):
        await node.ask()
        caplog.clear()
        redis_server.clear()
        await eventually(lambda: ours(caplog), "the record of the reset")
        (told,) = ours(caplog)
        assert (told.levelno, told.__dict__["cacheinval.cause"]) == (logging.WARNING, "new-term")


def test_resets_have_one_level(caplog: pytest.LogCaptureFixture) -> None:
    """Also in outages too frequent to be told of; three in a row are, then two a minute, and DEBUG has all."""
    clock = FakeClock()
    touch = Touch(HTTPCache(clock=clock)._core._recorder(), clock, bound=2.0)

    def outage(cause: str | None) -> None:
        touch.lost("away")
        touch.found()
        if cause is not None:
            touch.gave_up(cause, Term(2, "t"))
        touch.returned()

    with caplog.at_level(logging.DEBUG):
        for _ in range(5):
            outage(None)
        told = len(ours(caplog))
        outage("new-term")
        touch.gave_up("behind", Term(2, "t"))
        touch.gave_up("start", Term(2, "t"))
        assert [each.levelno for each in ours(caplog)[told:]] == [logging.WARNING] * 2
        for _ in range(10):
            touch.gave_up("conflict", Term(2, "t"))
        assert len(ours(caplog)) == told + 3
        clock.tick(30)
        touch.gave_up("conflict", Term(2, "t"))
        assert len(ours(caplog)) == told + 4
    assert (
        len([each for each in caplog.records if "cacheinval.cause" in each.__dict__ and "given up" in each.msg]) == 12
    )


async def test_a_failing_app_logs_once_until_it_is_well(caplog: pytest.LogCaptureFixture) -> None:
    """Stale responses that stand in for a handler that raises are one line for the route, until a fill succeeds."""
    shop = Shop()
    broken = False

    @shop.app.get("/pages/{name}", dependencies=[cached(CachePolicy(ttl=1, stale_if_error=10_000))])
    async def read(name: str) -> int:
        if broken:
            raise RuntimeError("out of order")
        return shop.count()

    for failures in (1, 2):
        broken = False
        await shop.ask("/pages/private-name")
        shop.clock.tick(2)
        broken = True
        with caplog.at_level(logging.DEBUG):
            for _ in range(10):
                await shop.ask("/pages/private-name")
                # A forward that failed is followed by a pause, of a minute at most.
                shop.clock.tick(61)
        assert len(ours(caplog)) == failures
    first = ours(caplog)[0]
    assert (first.levelno, first.__dict__["http.route"]) == (logging.ERROR, "/pages/{name}")
    assert "private-name" not in "".join(each.getMessage() for each in caplog.records if "cacheinval" in each.name)


async def test_refreshes_that_fail_log_once(caplog: pytest.LogCaptureFixture) -> None:
    """Ten refreshes that raise are one line."""
    shop = Shop()
    broken = False

    @shop.app.get("/{number}", dependencies=[cached(CachePolicy(ttl=1, stale_while_revalidate=10_000))])
    async def read(number: int) -> int:
        if broken:
            raise RuntimeError("out of order")
        return shop.count()

    for number in range(10):
        await shop.ask(f"/{number}")
    shop.clock.tick(2)
    broken = True
    with caplog.at_level(logging.DEBUG):
        for number in range(10):
            await shop.ask(f"/{number}")
        await shop.refreshed(10)
    assert [each.getMessage() for each in ours(caplog)] == ["a background refresh failed"]


async def test_ordinary_requests_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Hits, misses, refusals and purges are silent."""
    shop = Shop()

    @shop.app.get("/{number}", dependencies=[cached(ttl=60)])
    async def read(number: int) -> int:
        return shop.count()

    await shop.ask("/1")
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        for path in ("/1", "/2", "/x", "/1"):
            await shop.ask(path)
        await shop.cache.invalidate("a")
    assert ours(caplog) == []
