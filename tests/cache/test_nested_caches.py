"""An app with a cache of its own, behind the middleware of another cache, which keeps its pages."""

# No postponed annotations: the handlers name classes of their own test.

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, PurgeNotDelivered, cached
from fastapi_cacheinval.engine.purger import Purger
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Answer, ask, until

pytestmark = pytest.mark.anyio


class Nested:
    """A shop that mounts an app with a cache of its own."""

    def __init__(self, outer: HTTPCache, inner: HTTPCache | None) -> None:
        self.outer, self.inner = outer, inner
        self.value = 0
        self.sub, self.app = FastAPI(), FastAPI()
        self.sub.get("/page", dependencies=[cached(ttl=60, tags=["t"])])(self.page)
        self.sub.post("/sync")(self.sync)
        self.sub.add_middleware(CacheMiddleware, cache=inner)
        self.app.mount("/sub", self.sub)
        self.app.add_middleware(CacheMiddleware, cache=outer)

    async def page(self) -> int:
        return self.value

    def sync(self) -> None:
        """A plain handler that purges by hand, in a thread."""
        self.value += 1
        assert self.inner is not None
        self.inner.invalidate_sync("t")

    async def warm(self) -> Answer:
        for _ in range(2):
            answer = await ask(self.app, "/sub/page")
        assert_hit(answer)
        return answer


async def by_tag(cache: HTTPCache) -> Any:
    return await cache.invalidate("t")


async def soft(cache: HTTPCache) -> Any:
    return await cache.invalidate("t", soft=True)


async def everything(cache: HTTPCache) -> Any:
    return await cache.clear()


async def delivered(cache: HTTPCache) -> Any:
    return await cache.deliver("t")


async def everywhere(cache: HTTPCache) -> Any:
    return await cache.invalidate("t", wait="all")


async def soon(cache: HTTPCache) -> Any:
    cache.invalidate_soon("t")


async def by_path(cache: HTTPCache) -> Any:
    return await cache.invalidate_url("/sub/page")


async def in_a_thread(cache: HTTPCache) -> Any:
    return await asyncio.to_thread(cache.invalidate_sync, "t")


@pytest.mark.parametrize("purge", [by_tag, soft, everything, delivered, everywhere, soon, by_path, in_a_thread])
async def test_a_purge_by_hand_reaches_the_pages_that_the_outer_cache_keeps(purge: Any) -> None:
    """Each way to purge with the cache of the mounted app."""
    async with HTTPCache() as outer, HTTPCache(namespace="sub") as inner:
        shop = Nested(outer, inner)
        await shop.warm()
        shop.value += 1
        await purge(inner)
        assert (await ask(shop.app, "/sub/page")).body == b"1"
        await until(lambda: sum(outer.statistics().purges.values()) == 1, "the outer purge")


async def test_a_plain_handler_of_the_mounted_app_purges_what_the_outer_cache_keeps() -> None:
    """`invalidate_sync` in a thread of the handler, under an outer cache that the app knows nothing of."""
    async with HTTPCache() as outer, HTTPCache(namespace="sub") as inner:
        shop = Nested(outer, inner)
        await shop.warm()
        assert (await ask(shop.app, "/sub/sync", method="POST")).status_code == 200
        assert (await ask(shop.app, "/sub/page")).body == b"1"


async def test_the_log_names_both_caches_once(caplog: pytest.LogCaptureFixture) -> None:
    """When the first request comes by, and before anything of it is kept."""
    caplog.set_level(logging.WARNING, "fastapi_cacheinval")
    async with HTTPCache() as outer, HTTPCache(namespace="sub") as inner:
        shop = Nested(outer, inner)
        for _ in range(3):
            await ask(shop.app, "/sub/nothing")
        said = [record.getMessage() for record in caplog.records if "behind the CacheMiddleware" in record.getMessage()]
        assert len(said) == 1
        assert "'sub'" in said[0]
        assert "'cacheinval'" in said[0]


@pytest.mark.parametrize("own", [True, False])
async def test_one_cache_in_both_places_and_a_cache_that_nobody_knows_are_no_matter(
    own: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said, and each purge is made once."""
    caplog.set_level(logging.WARNING, "fastapi_cacheinval")
    async with HTTPCache() as outer:
        shop = Nested(outer, None if own else outer)
        await shop.warm()
        await outer.invalidate("t")
        assert outer.statistics().purges == {"published": 1}
    assert not caplog.records


async def test_two_caches_that_keep_each_others_pages_purge_once_each() -> None:
    """Each app is mounted in the other; purges do not go round."""
    async with HTTPCache(namespace="one") as one, HTTPCache(namespace="two") as two:
        for outer, inner in ((one, two), (two, one)):
            await Nested(outer, inner).warm()
        for cache in (one, two):
            await cache.invalidate("t")
        assert {sum(cache.statistics().purges.values()) for cache in (one, two)} <= {1, 2}


async def test_a_purge_that_fails_in_the_inner_cache_is_made_in_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the inner one is the caller's, and the page is gone."""
    async with HTTPCache() as outer, HTTPCache(namespace="sub") as inner:
        shop = Nested(outer, inner)
        await shop.warm()
        own = Purger._purge
        broken = inner._core.purger

        async def refused(self: Purger, *args: Any, **more: Any) -> Any:
            if self is broken:
                raise PurgeNotDelivered(("t",), "it is broken")
            return await own(self, *args, **more)

        monkeypatch.setattr(Purger, "_purge", refused)
        shop.value += 1
        with pytest.raises(PurgeNotDelivered):
            await inner.invalidate("t")
        assert (await ask(shop.app, "/sub/page")).body == b"1"
