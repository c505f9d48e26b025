"""`Cache-Status` and the spans say the same of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CachePolicy, CacheTags, cached, invalidates
from fastapi_cacheinval.core.outcome import Result
from tests.helpers.http import Answer, until
from tests.helpers.telemetry import Watched, attributes_of

pytestmark = pytest.mark.anyio

POLICY = CachePolicy(ttl=60, stale_while_revalidate=60, stale_if_error=600)


def agree(answer: Answer, said: dict[str, Any]) -> str:
    """Compare one answer with what its span says; gives the two in short."""
    status = answer.cache
    if status is None:
        assert said == {}, answer
        return "nothing"
    result = Result(said["result"])
    assert (said.get("reason"), said.get("detail")) == (status.fwd, status.detail), (answer, said)
    assert (result is Result.COLLAPSED) == status.collapsed, (answer, said)
    assert (result in (Result.HIT, Result.STALE)) == (status.hit or (status.fwd == "stale" and "age" in said)), answer
    if status.hit:
        assert status.ttl is not None
        assert (result is Result.STALE) == (status.ttl < 0), (answer, said)
    if "age" in said:
        assert answer.headers["age"] == str(said["age"])
    else:
        assert result in (Result.MISS, Result.BYPASS)
    assert ("tier" in said) == ("age" in said)
    return f"{result.value} {said.get('detail') or said.get('reason', '-')}"


class Driver:
    """Asks one after the other, and compares each answer with its span."""

    def __init__(self, shop: Watched) -> None:
        self.shop = shop
        self.seen: list[str] = []

    async def ask(self, path: str, **more: Any) -> str:
        """One request; gives what both said of it."""
        self.shop.recorded.forget()
        answer = await self.shop.ask(path, **more)
        self.seen.append(agree(answer, attributes_of(self.shop.recorded.server())))
        return self.seen[-1]


def outcomes() -> Watched:  # noqa: C901 - a route for each
    """An app with a route for each way in which an answer can come."""
    shop = Watched(max_body_bytes=100)
    shop.behaviour = {}  # type: ignore[attr-defined]
    behaviour: dict[str, Any] = shop.behaviour  # type: ignore[attr-defined]

    async def late() -> AsyncIterator[None]:
        yield
        await shop.cache.invalidate("late")

    @shop.app.get("/item/{number}", dependencies=[cached(POLICY, tags=["item:{number}"])])
    async def item(number: int) -> Response:
        shop.count()
        match behaviour.get("do"):
            case "fail":
                raise RuntimeError
            case "503":
                return Response(status_code=503)
            case "purge":
                await shop.cache.invalidate(f"item:{number}")
            case asyncio.Event() as gate:
                await gate.wait()
        return Response("x", headers=behaviour.get("headers", {}))

    @shop.app.get("/varied", dependencies=[cached(POLICY)])
    async def varied() -> Response:
        return Response("x", headers={"vary": "accept-language"})

    @shop.app.get("/large", dependencies=[cached(POLICY)])
    async def large() -> Response:
        return Response(b"x" * 200)

    @shop.app.get("/stream", dependencies=[cached(POLICY)])
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x"

        return StreamingResponse(chunks())

    @shop.app.get("/gone", dependencies=[cached(POLICY)])
    async def gone() -> None:
        raise HTTPException(404)

    async def guard(request: Request) -> None: ...

    @shop.app.get("/guarded", dependencies=[cached(POLICY, guarded_by=guard)])
    async def guarded() -> str:
        return "guarded"

    @shop.app.get("/plain")
    async def plain() -> str:
        return "plain"

    @shop.app.post("/item/{number}", dependencies=[invalidates("item:{number}"), Depends(late)])
    async def write(number: int, tags: CacheTags) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"

        return StreamingResponse(chunks())

    return shop


REFUSALS = {
    "set-cookie": {"set-cookie": "a=b"},
    "no-store": {"cache-control": "no-store"},
    "private": {"cache-control": "private"},
    "vary": {"vary": "*"},
    "content-range": {"content-range": "bytes 0-0/1"},
    "event-stream": {"content-type": "text/event-stream"},
}


async def test_cache_status_and_spans_never_disagree() -> None:
    """Every outcome of a policy's route is driven, and the two are compared for each."""
    shop = outcomes()
    behaviour: dict[str, Any] = shop.behaviour  # type: ignore[attr-defined]
    driver = Driver(shop)
    assert await driver.ask("/plain") == "nothing"
    # Hits and misses.
    assert await driver.ask("/item/1") == "miss uri-miss"
    assert await driver.ask("/item/1") == "hit -"
    assert await driver.ask("/item/1", headers={"if-none-match": "*"}) == "hit -"
    assert await driver.ask("/item/1", method="HEAD") == "hit -"
    assert await driver.ask("/item/1", headers={"authorization": "me"}) == "hit -"
    assert await driver.ask("/guarded") == "miss uri-miss"
    assert await driver.ask("/guarded") == "hit -"
    assert await driver.ask("/varied", headers={"accept-language": "de"}) == "miss uri-miss"
    assert await driver.ask("/varied", headers={"accept-language": "it"}) == "miss vary-miss"
    assert await driver.ask("/stream") == "miss uri-miss"
    assert await driver.ask("/stream") == "hit -"
    # Stale ones, and what stands in for a failure.
    shop.clock.tick(70)
    assert await driver.ask("/item/1") == "stale -"
    await shop.refreshed()
    await shop.cache.invalidate("item:1", soft=True)
    shop.clock.tick(61)
    for failure in ("503", "fail"):
        behaviour["do"] = failure
        shop.clock.tick(120)
        assert await driver.ask("/item/1") == "stale stale"
    del behaviour["do"]
    # A pause follows.
    assert await driver.ask("/item/1") == "stale -"
    shop.clock.tick(61)
    assert await driver.ask("/item/1") == "miss stale"
    # What is not kept.
    assert await driver.ask("/gone") == "miss status"
    assert await driver.ask("/large") == "miss too-large"
    for number, (reason, headers) in enumerate(REFUSALS.items(), start=100):
        behaviour["headers"] = headers
        assert await driver.ask(f"/item/{number}") == f"miss {reason}"
    del behaviour["headers"]
    behaviour["do"] = "purge"
    assert await driver.ask("/item/7") == "miss superseded"
    del behaviour["do"]
    # What is not asked.
    assert await driver.ask("/item/x") == "bypass invalid"
    assert await driver.ask("/item/8", headers={"cache-control": "only-if-cached"}) == "miss only-if-cached"
    shop.cache.enabled = False
    assert await driver.ask("/item/1") == "bypass disabled"
    shop.cache.enabled = True
    # Mutations.
    assert await driver.ask("/item/1", method="POST") == "bypass late-purge"
    # Waiting for another's forward.
    gate = behaviour["do"] = asyncio.Event()
    leader = shop.call("/item/9")
    await until(lambda: shop.cache.statistics().forwards_under_way)
    shop.recorded.forget()
    waiter = shop.call("/item/9")
    for _ in range(20):
        await asyncio.sleep(0)
    gate.set()
    answers = [await leader.answer(), await waiter.answer()]
    told = [attributes_of(span) for span in shop.recorded.spans("GET /item/{number}")]
    told.sort(key=lambda said: said["result"], reverse=True)
    assert [agree(*pair) for pair in zip(answers, told, strict=True)] == ["miss uri-miss", "collapsed uri-miss"]
    assert {each.split()[0] for each in driver.seen} | {"collapsed"} == {each.value for each in Result} | {"nothing"}


async def test_they_agree_under_honoured_headers_too() -> None:
    """Every outcome by headers is driven, and the two are compared for each."""
    shop = Watched(middleware={"honour_headers": True}, max_body_bytes=100)
    behaviour: dict[str, Any] = {}

    @shop.app.get("/page")
    async def page() -> Response:
        shop.count()
        if behaviour.get("fail"):
            return Response(status_code=503)
        return Response(
            "x" * behaviour.get("size", 1), headers=behaviour.get("headers", {"cache-control": "max-age=60"})
        )

    driver = Driver(shop)
    assert await driver.ask("/page") == "miss uri-miss"
    assert await driver.ask("/page") == "hit -"
    assert await driver.ask("/page", method="HEAD") == "hit -"
    assert await driver.ask("/page", headers={"range": "bytes=0-0"}) == "hit -"
    assert await driver.ask("/page", headers={"cache-control": "no-cache"}) == "miss request"
    shop.clock.tick(70)
    assert await driver.ask("/page", headers={"cache-control": "max-stale"}) == "stale -"
    assert await driver.ask("/page", headers={"cache-control": "only-if-cached"}) == "miss only-if-cached"
    behaviour["headers"] = {"cache-control": "max-age=60, stale-if-error=600"}
    assert await driver.ask("/page") == "miss stale"
    shop.clock.tick(70)
    behaviour["fail"] = True
    assert await driver.ask("/page") == "stale stale"
    behaviour["fail"] = False
    for reason, headers in {
        "no-store": {"cache-control": "no-store"},
        "private": {"cache-control": "private"},
        "set-cookie": {"set-cookie": "a=b"},
        "not-fresh": {"cache-control": "max-age=0"},
    }.items():
        behaviour["headers"] = headers
        assert await driver.ask(f"/page?{reason}") == f"miss {reason}"
    behaviour.update(size=200, headers={"cache-control": "max-age=60"})
    assert await driver.ask("/page?large") == "miss too-large"
    shop.cache.enabled = False
    assert await driver.ask("/page") == "bypass disabled"
