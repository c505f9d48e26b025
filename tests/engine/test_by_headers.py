"""Responses that their own headers steer, shared among replicas as those with a policy are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.trouble import QUICK, says_disconnected
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

STEERED: dict[str, Any] = {"middleware": {"honour_headers": True}}


def routes(node: Node) -> None:
    """Resources whose headers say how long they live, and for whom."""

    @node.app.get("/page/{name}")
    async def page(name: str, request: Request) -> Response:
        found = await node.data.read(node.number, name)
        etag = f'"{found["version"]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag, "cache-control": "max-age=60"})
        return Response(str(found), headers={"cache-control": "max-age=60", "etag": etag, "surrogate-key": name})

    @node.app.api_route("/told", methods=["GET", "HEAD"])
    async def told(request: Request) -> Response:
        # The content stays; what is said of it does not.
        version = node.data.versions["told"]
        control = "max-age=0" if version > 1 else "max-age=60"
        headers = {"cache-control": control, "etag": '"1"', "surrogate-key": f"v{version}"}
        if request.headers.get("if-none-match") == '"1"':
            return Response(status_code=304, headers=headers)
        return Response("told", headers=headers)

    @node.app.post("/page/{name}")
    async def change(name: str) -> Response:
        node.data.versions[name] += 1
        return Response()

    @node.app.get("/said")
    async def said(request: Request) -> Response:
        language = request.headers.get("accept-language", "")
        await node.data.read(node.number, language)
        return Response(language, headers={"cache-control": "max-age=60", "vary": "accept-language"})

    @node.app.get("/streamed")
    async def streamed() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        await node.data.read(node.number, "streamed")
        return StreamingResponse(chunks(), headers={"cache-control": "max-age=60"})

    @node.app.get("/coded")
    async def coded(request: Request) -> Response:
        found = await node.data.read(node.number, "coded")
        headers = {"cache-control": "max-age=60", "etag": f'"{found["version"]}"'}
        if "range" in request.headers:
            part = f"p{found['version']}"
            return Response(part, 206, {**headers, "content-range": "bytes 0-1/5"})
        return Response("coded", headers={**headers, "content-encoding": "br"})

    @node.app.get("/own/{kind}")
    async def own(kind: str) -> Response:
        await node.data.read(node.number, kind)
        headers = {
            "private": {"cache-control": "private, max-age=60"},
            "no-store": {"cache-control": "no-store"},
            "cookie": {"cache-control": "no-cache", "set-cookie": "a=b"},
        }
        return Response(kind, headers=headers[kind])


def applied(node: Node, number: int) -> bool:
    """Whether a replica has read so far."""
    return bool(node.statistics.applied == number)


async def test_what_a_head_says_replaces_what_is_shared(redis_server: Valkey) -> None:
    """A purge of the tag that it has brought leaves no copy with the older tags."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        assert_miss(await a.ask("/told"))
        await a.written()
        a.data.versions["told"] = 1
        head = await a.ask("/told", method="HEAD", headers={"cache-control": "no-cache"})
        assert head.cache is not None
        assert head.cache.stored
        await a.written(2)
        found = await b.ask("/told")
        assert_hit(found)
        assert found.fields("surrogate-key") == [b"v1"]
        await a.cache.invalidate("v1")
        assert_miss(await a.ask("/told"))


@pytest.mark.parametrize(
    ("method", "asks", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"range": "bytes=0-1"}, 206),
        ("GET", {"cache-control": "only-if-cached"}, 200),
    ],
)
async def test_what_another_replica_has_answers_who_cannot_lead_a_forward(
    redis_server: Valkey, method: str, asks: dict[str, str], status: int
) -> None:
    """An answer does not depend on the replica that is asked: FastAPI says 405 to a HEAD at a route of GET."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        await a.ask("/page/x")
        await a.written()
        found = await b.ask("/page/x", method=method, headers=asks)
        assert_hit(found)
        assert found.status_code == status
        assert a.data.forwards == 1


async def test_a_part_gives_way_to_a_newer_coded_whole_of_another_replica(redis_server: Valkey) -> None:
    """The replica that has both would answer with the older version after the newer one."""
    asks = {"range": "bytes=0-1"}
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        await b.ask("/coded", headers=asks)
        assert_hit(await b.ask("/coded", headers=asks))
        a.data.versions["coded"] = 1
        await a.ask("/coded")
        await a.written()
        assert_hit(await b.ask("/coded"))
        assert (await b.ask("/coded", headers=asks)).body == b"p1"


async def test_no_range_is_cut_of_what_another_replica_has_coded(redis_server: Valkey) -> None:
    """The app is asked for it; who wants only what is stored gets the whole."""
    async with fleet(redis_server.url, count=3, routes=routes, **STEERED) as (a, b, c):
        await a.ask("/coded")
        await a.written()
        part = await b.ask("/coded", headers={"range": "bytes=0-1"})
        assert (part.status_code, part.body) == (206, b"p0")
        wanted = await c.ask("/coded", headers={"range": "bytes=0-1", "cache-control": "only-if-cached"})
        assert (wanted.status_code, wanted.body) == (200, b"coded")
        for node in (b, c):
            assert_hit(await node.ask("/coded"))
        assert a.data.forwards == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_the_app_calls_stale_is_shared_no_more(redis_server: Valkey, method: str) -> None:
    """Nobody finds the copy that is fresh by what was said before."""
    async with fleet(redis_server.url, count=1, routes=routes, **STEERED) as (a,):
        await a.ask("/told")
        await a.written()
        assert len(redis_server.client.keys("*:r")) == 1
        a.data.versions["told"] = 2
        told = await a.ask("/told", method=method, headers={"cache-control": "no-cache"})
        assert told.cache is not None
        assert told.cache.stored
        await eventually(lambda: redis_server.client.keys("*:r") == [], "the older copy is gone")


async def test_a_page_is_made_once_for_all_and_purged_for_all(redis_server: Valkey) -> None:
    """Found in L2 with its age, invalidated by a POST elsewhere, by its surrogate key and by its URL."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        assert_miss(await a.ask("/page/x"))
        await a.written()
        answer = await b.ask("/page/x")
        assert_hit(answer)
        assert answer.headers["age"] == "0"
        assert b.l2("hit") == 1
        purges: list[Any] = [
            partial(a.ask, "/page/x", method="POST"),
            partial(a.cache.invalidate, "x"),
            partial(a.cache.invalidate_url, "/page/x"),
            a.cache.clear,
        ]
        for number, purge in enumerate(purges, start=1):
            await purge()
            await eventually(partial(applied, b, number), "the purge")
            before = b.l2("write")
            assert_miss(await b.ask("/page/x"))
            await b.written(before + 1)
            assert_hit(await a.ask("/page/x"))
        assert a.data.forwards == 5


async def test_variants_are_found_by_their_headers(redis_server: Valkey) -> None:
    """`Vary` of the response chooses on the other replica too."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        for number, language in enumerate(("de", "fr"), start=1):
            await a.ask("/said", headers={"accept-language": language})
            await a.written(number)
        for language in ("fr", "de"):
            answer = await b.ask("/said", headers={"accept-language": language})
            assert_hit(answer)
            assert answer.body.decode() == language
        assert_miss(await b.ask("/said", headers={"accept-language": "it"}))


@pytest.mark.parametrize("kind", ["private", "no-store", "cookie"])
async def test_what_is_not_for_all_is_not_in_the_shared_tier(redis_server: Valkey, kind: str) -> None:
    """`private` and `no-store` stay out; each replica's own handler answers."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        for node in (a, b, a):
            assert (await node.ask(f"/own/{kind}")).body.decode() == kind
        assert a.data.forwards == 3
        assert b.l2("hit") == 0


async def test_a_burst_over_replicas_is_one_forward(redis_server: Valkey) -> None:
    """The fill lock holds for these pages as well."""
    async with fleet(redis_server.url, 3, routes=routes, **STEERED) as nodes:
        data = nodes[0].data
        data.gate = asyncio.Event()
        calls = [nodes[number % 3].call("/page/hot") for number in range(60)]
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 3, "a flight on each")
        data.gate.set()
        answers = [await call.answer() for call in calls]
        assert len({answer.body for answer in answers}) == 1
        assert data.forwards == 1


@pytest.mark.parametrize("path", ["/page/hot", "/items/hot"])
async def test_what_another_replica_has_made_is_a_hit_for_all_who_ask_at_once(redis_server: Valkey, path: str) -> None:
    """Nobody's forward was waited for: one asks L2, and none of the answers is said to be collapsed."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        await a.ask(path)
        await a.written()
        answers = [await call.answer() for call in [b.call(path) for _ in range(20)]]
        for answer in answers:
            assert_hit(answer)
            assert answer.cache is not None
            assert not answer.cache.collapsed
        assert b.statistics.collapsed == 0
        assert b.l2("hit") == 1
        assert a.data.forwards == 1


async def test_a_client_revalidates_what_another_replica_made(redis_server: Valkey) -> None:
    """The validator is the same everywhere: 304 from L2, without the handler."""
    async with fleet(redis_server.url, routes=routes, **STEERED) as (a, b):
        first = await a.ask("/page/x")
        await a.written()
        answer = await b.ask("/page/x", headers={"if-none-match": first.headers["etag"]})
        assert answer.status_code == 304
        assert a.data.forwards == 1


async def test_a_response_that_is_purged_while_its_lease_is_over_is_not_served(redis_server: Valkey) -> None:
    """Out of reach of the log such pages are made anew, and say why."""
    with tcp_proxy(redis_server.port) as proxy:
        async with (
            fleet(redis_server.url, 1, routes=routes, **STEERED, **QUICK) as (a,),
            fleet(proxy.url, 1, data=a.data, first=1, routes=routes, **STEERED, **QUICK) as (b,),
        ):
            await a.ask("/page/x")
            await b.ask("/page/x")
            proxy.black_hole()
            await b.out_of_touch()
            await a.ask("/page/x", method="POST")
            answer = await b.ask("/page/x")
            assert_miss(answer)
            assert says_disconnected(answer)
            assert "'version': 1" in answer.body.decode()
            assert says_disconnected(await b.ask("/streamed"))
            proxy.heal()
