"""What a CDN in front is told not to keep: all that is not known to be open, whole, current and purgeable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, Header, HTTPException, Response
from fastapi.responses import JSONResponse

from fastapi_cacheinval import cached
from tests.framework.downstream.told import (
    VIA,
    a_hit,
    forbidden,
    keys,
    lifetime,
    read_and_write,
    shop_in_front,
    told_nothing,
)
from tests.helpers.http import until

pytestmark = pytest.mark.anyio


def tenant(x_tenant: str = Header(default="")) -> str:
    if x_tenant == "unknown":
        raise HTTPException(404)
    return x_tenant


@pytest.mark.parametrize(
    "policy",
    [
        {"partition_by": tenant},
        {"guarded_by": tenant},
        {"partition_by": tenant, "cache_control": "public, max-age=600"},
        {"guarded_by": tenant, "downstream_ttl": 600},
        {"cache_control": "private, max-age=5"},
        {"cache_control": "max-age=5, No-Store"},
    ],
)
async def test_what_is_not_for_all(policy: dict[str, Any]) -> None:
    """Behind a partition or a guard, or by its policy's own word: not on the first answer, and not on a hit."""
    shop = shop_in_front()
    read_and_write(shop, **policy)
    assert forbidden(await shop.ask("/items/a", headers=VIA))
    assert forbidden(a_hit(await shop.ask("/items/a", headers=VIA)))


class Copies:
    """Hands a scope of its own on."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope}, receive, send)


@pytest.mark.parametrize("layer", [None, Copies])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("policy", [{"partition_by": tenant}, {"guarded_by": tenant}])
async def test_answers_of_guards_themselves(policy: dict[str, Any], method: str, layer: Any) -> None:
    """A 404 for one tenant, which many CDNs keep, is not kept for the next."""
    shop = shop_in_front()
    if layer is not None:
        shop.inside(layer)
    read_and_write(shop, **policy)
    answer = await shop.ask("/items/a", method=method, headers={**VIA, "x-tenant": "unknown"})
    assert answer.status_code == 404
    assert forbidden(answer)


async def test_what_the_request_itself_keeps_from_the_lookup() -> None:
    """Parameters that are not valid, and a 504 for who wanted nothing but what is stored."""
    shop = shop_in_front()

    @shop.app.get("/numbers/{number}", dependencies=[cached(ttl=60)])
    async def read(number: int) -> int:
        return number

    invalid = await shop.ask("/numbers/none", headers=VIA)
    assert (invalid.status_code, forbidden(invalid)) == (422, True)
    unwanted = await shop.ask("/numbers/1", headers={**VIA, "cache-control": "only-if-cached"})
    assert (unwanted.status_code, forbidden(unwanted)) == (504, True)


async def test_author_who_says_that_it_is_the_same_for_all_is_not_asked_to_open_it() -> None:
    """`shared=True` says nothing of who may ask: a dependency that checks is not skipped by a CDN."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[Depends(tenant), cached(ttl=60, shared=True)])
    async def read() -> str:
        return "it"

    assert forbidden(await shop.ask(headers=VIA))
    assert forbidden(a_hit(await shop.ask(headers=VIA)))


class AsksForAKey:
    """Answers 401 to who has no key."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"x-key", b"good") not in scope["headers"]:
            await JSONResponse("no", status_code=401)(scope, receive, send)
            return
        await self.app(scope, receive, send)


async def test_what_stands_behind_middleware_that_a_hit_at_the_cdn_would_skip() -> None:
    """A layer inside that asks for a key asks each caller: a CDN would not."""
    shop = shop_in_front()
    shop.inside(AsksForAKey)
    read_and_write(shop)
    for _ in range(2):
        answer = await shop.ask("/items/a", headers={**VIA, "x-key": "good"})
        assert answer.status_code == 200
        assert forbidden(answer)
    assert (await shop.ask("/items/a", headers=VIA)).status_code == 401


class Greets:
    """Writes who asked into each answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def greeting(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-greets", b"you")]}
            await send(message)

        await self.app(scope, receive, greeting)


async def test_what_a_layer_has_changed() -> None:
    """With `front=True` an author opens the lookup; an answer that a layer has changed is still its caller's own."""
    shop = shop_in_front(middleware={"front": True})
    shop.inside(Greets)
    read_and_write(shop)
    changed = await shop.ask("/items/a", headers=VIA)
    assert changed.headers["x-greets"] == "you"
    assert forbidden(changed)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"set-cookie": "a=b"}, 200),
        ({"cache-control": "private"}, 200),
        ({"cache-control": "no-store"}, 200),
        ({"vary": "*"}, 200),
        ({}, 404),
        ({}, 500),
    ],
)
async def test_what_is_not_stored_here(fields: dict[str, str], status: int) -> None:
    """What the cache itself refuses is not kept in front of it."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60, tags=["it"])])
    async def read() -> Response:
        return Response(b"it", status_code=status, headers=fields)

    assert forbidden(await shop.ask(headers=VIA))


@pytest.mark.parametrize("name", ["surrogate-control", "cdn-cache-control", "cloudflare-cdn-cache-control"])
async def test_handlers_own_word_to_cdns(name: str) -> None:
    """A handler that forbids CDNs to keep its answer is obeyed, on the first answer and on hits, whoever asks."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        return Response(b"it", headers={name: "no-store"})

    for _ in range(2):
        assert forbidden(await shop.ask(headers=VIA))
        assert (await shop.ask()).headers[name] == "no-store"


async def test_handlers_lifetime_for_cdns_is_replaced() -> None:
    """What it allows is said once, by the policy."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        return Response(b"it", headers={"surrogate-control": "max-age=999", "cdn-cache-control": "max-age=999"})

    for _ in range(2):
        answer = await shop.ask(headers=VIA)
        assert lifetime(answer) == "max-age=60"
        assert not answer.fields("cdn-cache-control")


async def test_forward_that_a_purge_has_overtaken() -> None:
    """It was computed before the purge: the CDN, which is purged already, must not keep it."""
    shop = shop_in_front()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60, tags=["it"])])
    async def read() -> str:
        shop.count()
        await gate.wait()
        return "old"

    call = shop.call(headers=VIA)
    await until(lambda: shop.calls, "the forward")
    await shop.cache.invalidate("it")
    gate.set()
    answer = await call.answer()
    assert answer.cache is not None
    assert answer.cache.detail == "superseded"
    assert forbidden(answer)


async def test_forward_while_a_tag_is_fenced() -> None:
    """A purge on its way has no number yet, and counts already."""
    shop = shop_in_front()
    read_and_write(shop)
    assert lifetime(await shop.ask("/items/a", headers=VIA)) == "max-age=60"
    fence = shop.cache._core.engine.replica.fence(["items"])
    try:
        assert forbidden(await shop.ask("/items/a", headers=VIA))
    finally:
        shop.cache._core.engine.replica.lift(fence)
    assert lifetime(await shop.ask("/items/a", headers=VIA)) == "max-age=60"


async def test_answers_without_a_lease() -> None:
    """`stale_when_disconnected` hands out what may have been purged; nobody in front is to keep it."""
    shop = shop_in_front(stale_when_disconnected=60)
    read_and_write(shop)
    assert lifetime(await shop.ask("/items/a", headers=VIA)) == "max-age=60"
    shop.cache._core.engine.replica.lease_until = shop.clock.now()
    assert forbidden(a_hit(await shop.ask("/items/a", headers=VIA)))
    assert forbidden(await shop.ask("/items/b", headers=VIA))


async def test_cache_that_is_switched_off() -> None:
    """What is forwarded as it comes is not kept in front either."""
    shop = shop_in_front()
    read_and_write(shop)
    shop.cache.enabled = False
    assert forbidden(await shop.ask("/items/a", headers=VIA))


async def test_more_tags_than_fit() -> None:
    """None is dropped in silence: the CDN does not keep it, which is counted, said in Cache-Status and logged once."""
    shop = shop_in_front()

    @shop.app.get("/{count}", dependencies=[cached(ttl=60)])
    async def read(count: int) -> Response:
        return Response(headers={"surrogate-key": " ".join(f"tag-number-{n:05}" for n in range(count))})

    assert len(keys(await shop.ask("/500", headers=VIA))) == 501
    for times in (1, 2):
        answer = await shop.ask("/1500", headers=VIA)
        assert forbidden(answer)
        assert answer.cache is not None
        assert answer.cache.detail == "tags"
        assert shop.cache.statistics().downstream == {"tags": times}
    assert told_nothing(await shop.ask("/1500"))
    # It is stored here, with all of its tags.
    await shop.cache.invalidate("tag-number-01499")
    assert (await shop.ask("/1500")).cache.hit is False  # type: ignore[union-attr]


async def test_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A page with too many tags is one line in the log, however often it is asked for."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        return Response(headers={"surrogate-key": " ".join(f"tag-number-{n:05}" for n in range(1500))})

    for _ in range(3):
        await shop.ask(headers=VIA)
    assert len([line for line in caplog.messages if "the CDN" in line]) == 1
