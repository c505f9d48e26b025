"""stale-while-revalidate and soft purges: stale answers now, one refresh per key in the background (RFC 5861)."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Header, HTTPException, Response

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale
from tests.helpers.http import Shop, settle, until

pytestmark = pytest.mark.anyio


class GatedShop(Shop):
    """An app with one cached route whose refreshes wait for a gate and then do what they are told."""

    def __init__(self, policy: Any, **options: Any) -> None:
        super().__init__(**options)
        self.gate = asyncio.Event()
        self.then: Exception | None = None
        self.running = 0

        @self.app.get("/{name}", dependencies=[policy])
        async def read(name: str, x_kind: Annotated[str, Header()] = "") -> str:
            number = self.count()
            if number > 1 and not self.gate.is_set():
                self.running += 1
                try:
                    await self.gate.wait()
                finally:
                    self.running -= 1
            if self.then is not None and number > 1:
                raise self.then
            return f"{name}{x_kind}{number}"


SWR = cached(ttl=60, stale_while_revalidate=100, tags=["it"])


async def test_fifty_stale_requests_are_answered_at_once_and_cause_one_refresh() -> None:
    """None of them waits; the refresh runs once; afterwards all see the new response."""
    shop = GatedShop(SWR)
    await shop.ask("/a")
    shop.clock.tick(61)
    answers = await asyncio.gather(*(shop.ask("/a") for _ in range(50)))
    for answer in answers:
        assert_stale(answer)
        assert answer.body == b'"a1"'
    await until(lambda: shop.running)
    assert_stale(await shop.ask("/a"))
    assert (shop.calls, shop.running, shop.cache.statistics().refreshing) == (2, 1, 1)
    shop.gate.set()
    await shop.refreshed()
    fresh = await shop.ask("/a")
    assert_hit(fresh)
    assert fresh.body == b'"a2"'
    assert shop.calls == 2


async def test_each_variant_has_its_own_refresh() -> None:
    """A refresh of one variant is no refresh of another."""
    shop = GatedShop(SWR)
    shop.gate.set()
    for kind in "xy":
        await shop.ask("/a", headers={"x-kind": kind})
    shop.clock.tick(61)
    for kind in "xy":
        assert_stale(await shop.ask("/a", headers={"x-kind": kind}))
    await shop.refreshed(2)
    for number, kind in ((3, "x"), (4, "y")):
        assert (await shop.ask("/a", headers={"x-kind": kind})).body.decode() == f'"a{kind}{number}"'


async def test_the_window_ends() -> None:
    """Past stale_while_revalidate the request waits for the app."""
    shop = GatedShop(SWR)
    shop.gate.set()
    await shop.ask("/a")
    shop.clock.tick(160)
    answer = await shop.ask("/a")
    assert_miss(answer)
    assert answer.body == b'"a2"'


async def test_after_the_window_requests_wait_for_the_refresh_that_runs() -> None:
    """What the refresh gives is shared with those who came too late for stale."""
    shop = GatedShop(SWR)
    await shop.ask("/a")
    shop.clock.tick(159)
    assert_stale(await shop.ask("/a"))
    shop.clock.tick(2)
    late = [shop.call("/a") for _ in range(3)]
    await settle()
    shop.gate.set()
    for call in late:
        assert (await call.answer()).body == b'"a2"'
    assert shop.calls == 2


@pytest.mark.parametrize("then", [HTTPException(503), RuntimeError("down")])
async def test_a_failing_refresh_leaves_the_stale_response_in_use(then: Exception) -> None:
    """Its error reaches no client; the next attempt waits a second; when it works again all is fresh."""
    shop = GatedShop(SWR)
    shop.gate.set()
    shop.then = then
    await shop.ask("/a")
    shop.clock.tick(61)
    assert_stale(await shop.ask("/a"))
    await shop.refreshed()
    assert shop.cache.statistics().refreshes == {"failed": 1}
    for _ in range(5):
        answer = await shop.ask("/a")
        assert_stale(answer)
        assert answer.body == b'"a1"'
    await settle()
    assert shop.calls == 2
    shop.clock.tick(1)
    shop.then = None
    assert_stale(await shop.ask("/a"))
    await shop.refreshed(2)
    assert_hit(await shop.ask("/a"))


@pytest.mark.parametrize("status", [404, 410])
async def test_a_refresh_that_finds_nothing_ends_the_stale_response(status: int) -> None:
    """The app's newer word is that there is none: what it said before is known to be wrong, and is not served again."""
    shop = GatedShop(SWR)
    shop.gate.set()
    shop.then = HTTPException(status)
    await shop.ask("/a")
    shop.clock.tick(61)
    assert_stale(await shop.ask("/a"))
    await shop.refreshed()
    assert (await shop.ask("/a")).status_code == status


async def test_a_refresh_that_may_not_be_stored_ends_the_stale_response() -> None:
    """The page is now somebody's own: the old one is not served any more."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=600)])
    async def read(response: Response) -> int:
        if shop.count() > 1:
            response.headers["cache-control"] = "no-store"
        return shop.calls

    await shop.ask()
    shop.clock.tick(61)
    assert_stale(await shop.ask())
    await shop.refreshed()
    assert (await shop.ask()).body == b"3"


# -- soft purges --------------------------------------------------------------------------------


async def test_a_soft_purge_is_served_stale_while_one_refresh_runs() -> None:
    """Its ttl is at most -1 at once, though the lifetime has not ended; then the new response is fresh."""
    shop = GatedShop(SWR)
    await shop.ask("/a")
    receipt = await shop.cache.invalidate("it", soft=True)
    assert receipt.soft
    answers = [await shop.ask("/a") for _ in range(5)]
    for answer in answers:
        assert_stale(answer)
        assert answer.cache is not None
        assert answer.cache.ttl is not None
        assert answer.cache.ttl <= -1
        assert answer.body == b'"a1"'
    shop.gate.set()
    await shop.refreshed()
    fresh = await shop.ask("/a")
    assert_hit(fresh)
    assert fresh.body == b'"a2"'
    assert shop.calls == 2


async def test_the_stale_window_of_a_soft_purge_begins_with_it() -> None:
    """Served stale for stale_while_revalidate after the purge, not after the lifetime's end."""
    shop = GatedShop(cached(ttl=1000, stale_while_revalidate=100, tags=["it"]))
    await shop.ask("/a")
    shop.clock.tick(10)
    await shop.cache.invalidate("it", soft=True)
    shop.clock.tick(99)
    assert_stale(await shop.ask("/a"))
    shop.clock.tick(2)
    late = shop.call("/a")
    await settle()
    assert not late.task.done()
    shop.gate.set()
    assert (await late.answer()).body == b'"a2"'


async def test_without_a_stale_window_a_soft_purge_forwards() -> None:
    """There is nothing that may be served stale."""
    shop = GatedShop(cached(ttl=60, tags=["it"]))
    shop.gate.set()
    await shop.ask("/a")
    await shop.cache.invalidate("it", soft=True)
    answer = await shop.ask("/a")
    assert_miss(answer)
    assert answer.body == b'"a2"'


async def test_a_hard_purge_ends_what_a_soft_one_left() -> None:
    """And a soft one after a hard one does not bring it back."""
    shop = GatedShop(SWR)
    shop.gate.set()
    await shop.ask("/a")
    await shop.cache.invalidate("it", soft=True)
    await shop.cache.invalidate("it")
    await shop.cache.invalidate("it", soft=True)
    answer = await shop.ask("/a")
    assert_miss(answer)
    assert answer.body == b'"a2"'


async def test_a_soft_purge_while_its_refresh_runs_asks_for_another() -> None:
    """What the refresh read may be from before the second purge: it is stored as stale."""
    shop = GatedShop(SWR)
    await shop.ask("/a")
    await shop.cache.invalidate("it", soft=True)
    assert_stale(await shop.ask("/a"))
    await until(lambda: shop.running)
    await shop.cache.invalidate("it", soft=True)
    shop.gate.set()
    await shop.refreshed()
    answer = await shop.ask("/a")
    assert_stale(answer)
    assert answer.body == b'"a2"'
    await shop.refreshed(2)
    assert_hit(await shop.ask("/a"))
    assert shop.calls == 3


async def test_a_hard_purge_while_a_refresh_runs_makes_its_result_unusable() -> None:
    """The refresh began before the purge: neither it nor the stale response is served after it."""
    shop = GatedShop(SWR)
    await shop.ask("/a")
    shop.clock.tick(61)
    assert_stale(await shop.ask("/a"))
    await until(lambda: shop.running)
    await shop.cache.invalidate("it")
    shop.gate.set()
    await shop.refreshed()
    assert shop.cache.statistics().refreshes == {"superseded": 1}
    answer = await shop.ask("/a")
    assert_miss(answer)
    assert answer.body == b'"a3"'
