"""L2: what one replica has filled the others serve, and what was purged nobody does."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
import redis
from fastapi import Depends, Header, Response

from fastapi_cacheinval import CachePolicy, cached
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.framework.ahead import ReadAhead
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale
from tests.helpers.fleet import Node, eventually, fleet, joining
from tests.helpers.http import Answer
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

LIFE = 60


async def caller(x_caller: Annotated[str, Header()]) -> str:
    """Who asks."""
    return x_caller


async def filled(node: Node, path: str = "/items/a", **more: Any) -> Answer:
    """Have a replica fill a path, and wait until that is in L2."""
    before = node.l2("write")
    answer = await node.ask(path, **more)
    await node.written(before + 1)
    return answer


def stored_keys(server: Valkey) -> list[str]:
    """The keys of stored responses and of what selects among variants."""
    return [key for key in server.execute("KEYS", "*") if key.endswith(":r")]


def raw(server: Valkey, key: str) -> bytes:
    """The bytes under a key."""
    with redis.Redis(port=server.port) as client:
        found: Any = client.get(key)
    return bytes(found)


def calls(server: Valkey, *commands: str) -> dict[str, int]:
    """How often the server has run each command."""
    stats = server.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in commands}


async def test_a_miss_on_one_replica_is_a_hit_from_the_shared_tier_on_another(redis_server: Valkey) -> None:
    """B answers with A's response, word for word; the tier is l2, and l1 from then on."""
    async with fleet(redis_server.url) as (a, b):
        first = await filled(a)
        assert_miss(first)
        assert first.cache is not None
        assert first.cache.stored
        answer = await b.ask()
        assert_hit(answer)
        assert answer.body == first.body
        assert answer.headers["etag"] == first.headers["etag"]
        assert b.tier() == "l2"
        again = await b.ask()
        assert_hit(again)
        assert again.body == first.body
        assert b.l2("hit") == 1
        assert b.statistics.responses == 1
        assert a.data.calls == [(0, "a")]


async def test_a_response_has_one_age_and_one_lifetime_on_all_replicas(redis_server: Valkey) -> None:
    """`Age` and the remaining `ttl` on B go on from those on A, and move with time."""
    async with fleet(redis_server.url, clocks=True) as (a, b):
        await filled(a)
        # Both clocks stand; only the server's runs.
        (key,) = stored_keys(redis_server)
        redis_server.execute("PEXPIRE", key, 1000 * (LIFE - 7) + 500)
        answer = await b.ask()
        assert_hit(answer)
        assert answer.cache is not None
        assert answer.headers["age"] in ("6", "7")
        assert answer.cache.ttl in (LIFE - 8, LIFE - 7)
        b.clock.tick(20)
        await b.in_touch()
        later = await b.ask()
        assert_hit(later)
        assert later.cache is not None
        assert later.headers["age"] in ("26", "27")
        assert later.cache.ttl in (LIFE - 28, LIFE - 27)


async def test_a_read_of_the_shared_tier_is_one_round_trip(redis_server: Valkey) -> None:
    """One script has both `GET` and `PTTL`, and nothing else is sent for a hit."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(redis_server.url, 1) as (a,), fleet(proxy.url, 1, clocks=True) as (b,):
            await filled(a)
            # Connections are open, and scripts are known, from here on.
            await filled(b, "/items/other")
            names = ("get", "pttl", "evalsha", "eval", "set", "multi")
            ours = {"evalsha": 1, "get": 1, "pttl": 1}
            # Its heartbeats are not to be counted; those of the other wait for its clock.
            await a.cache.stop()
            before = calls(redis_server, *names)
            proxy.black_hole("to_client")
            asked = b.call()

            def made() -> dict[str, int]:
                now = calls(redis_server, *names)
                return {name: now[name] - before[name] for name in names if now[name] != before[name]}

            await eventually(lambda: made() == ours, "both commands of the read")
            proxy.heal()
            answer = await asked.answer()
            assert_hit(answer)
            assert b.tier() == "l2"
            assert made() == ours
            await b.ask()
            assert made() == ours, "a hit in L1 costs the server nothing"


async def test_variants_are_shared_each_with_its_own(redis_server: Valkey) -> None:
    """Responses that differ by a request header are found by it on the other replica, and no other one is."""

    def routes(node: Node) -> None:
        @node.app.get("/said", dependencies=[cached(ttl=60, jitter=0, early_refresh=0)])
        async def said(accept_language: Annotated[str, Header()] = "") -> Any:
            return await node.data.read(node.number, accept_language)

    async with fleet(redis_server.url, routes=routes) as (a, b):
        for language in ("de", "fr"):
            await filled(a, "/said", headers={"accept-language": language})
        for language in ("fr", "de"):
            answer = await b.ask("/said", headers={"accept-language": language})
            assert_hit(answer)
            assert b.tier() == "l2"
            assert f'"{language}"' in answer.body.decode()
        await filled(b, "/said", headers={"accept-language": "it"})
        answer = await a.ask("/said", headers={"accept-language": "it"})
        assert_hit(answer)
        assert '"it"' in answer.body.decode()
        assert [name for _, name in a.data.calls] == ["de", "fr", "it"]


async def test_partitions_are_shared_where_all_replicas_have_the_secret(redis_server: Valkey) -> None:
    """One caller's response is found by the same caller on another replica, and never by another caller."""

    def routes(node: Node) -> None:
        @node.app.get("/mine", dependencies=[cached(ttl=60, partition_by=caller)])
        async def mine(name: Annotated[str, Depends(caller)]) -> Any:
            return await node.data.read(node.number, name)

    async with fleet(redis_server.url, routes=routes) as (a, b):
        await filled(a, "/mine", headers={"x-caller": "alice"})
        answer = await b.ask("/mine", headers={"x-caller": "alice"})
        assert_hit(answer)
        assert b'"alice"' in answer.body
        other = await b.ask("/mine", headers={"x-caller": "bob"})
        assert_miss(other)
        assert b'"bob"' in other.body
        async with fleet(redis_server.url, 1, routes=routes, secret="another secret of its own") as (c,):
            apart = await c.ask("/mine", headers={"x-caller": "alice"})
            assert_miss(apart)
        assert not any("alice" in key for key in redis_server.execute("KEYS", "*"))


@pytest.mark.parametrize("by", ["mutation", "hand", "url", "clear"])
async def test_what_was_purged_is_served_from_the_shared_tier_by_nobody(redis_server: Valkey, by: str) -> None:
    """The bytes are still there after any kind of purge, and neither the replica that purged nor any other takes them."""
    async with fleet(redis_server.url, 3) as (a, b, c):
        await filled(a)
        match by:
            case "mutation":
                assert (await b.ask(method="PUT")).headers["cacheinval-purge"] == "done"
            case "hand":
                await b.cache.invalidate("item:a")
            case "url":
                await b.cache.invalidate_url("/items/a")
            case _:
                await b.cache.clear()
        assert len(stored_keys(redis_server)) == 1
        assert_miss(await b.ask())
        await eventually(lambda: c.statistics.applied == a.statistics.applied == 1, "the purge everywhere")
        assert b.l2("outdated") == 1
        assert b.l2("hit") == 0
        await b.written()
        assert_hit(await c.ask())
        assert_hit(await a.ask())
        assert a.data.forwards == 2


async def test_a_replica_that_missed_the_purge_takes_nothing_once_its_lease_is_over(redis_server: Valkey) -> None:
    """Without a live lease L2 is not read at all, although `GET` would succeed."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(redis_server.url, 1) as (a,), fleet(proxy.url, 1, clocks=True) as (b,):
            await filled(a)
            # No heartbeat until the clock rings: the lease ends before that.
            b.clock._now += 7
            assert not b.live
            before = calls(redis_server, "get")
            answer = await b.ask()
            assert_miss(answer)
            assert answer.cache is not None
            assert answer.cache.detail == "disconnected"
            assert calls(redis_server, "get") == before
            assert b.l2("hit") == b.l2("miss") == 0


async def test_a_reply_that_comes_after_the_lease_is_refused(redis_server: Valkey) -> None:
    """The lease is looked at again when the answer of L2 has arrived."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(redis_server.url, 1) as (a,), fleet(proxy.url, 1, clocks=True) as (b,):
            await filled(a)
            await filled(b, "/items/other")
            before = calls(redis_server, "get")["get"]
            proxy.black_hole("to_client")
            asked = b.call()
            await eventually(lambda: calls(redis_server, "get")["get"] > before, "the read at the server")
            b.clock._now += 7
            proxy.heal()
            assert_miss(await asked.answer())
            assert b.l2("outdated") == 1
            assert b.l2("hit") == 0


@pytest.mark.parametrize("how", ["tampered", "swapped", "cut", "version", "empty"])
async def test_bytes_that_are_not_what_was_written_are_a_counted_miss(redis_server: Valkey, how: str) -> None:
    """Changed, swapped with those of another key, cut, of another format: the handler answers, and it is counted."""
    async with fleet(redis_server.url) as (a, b):
        other = await filled(a, "/items/other")
        (others,) = stored_keys(redis_server)
        await filled(a)
        (key,) = [name for name in stored_keys(redis_server) if name != others]
        data = bytearray(raw(redis_server, key))
        match how:
            case "tampered":
                data[-20] ^= 1
            case "swapped":
                data = bytearray(raw(redis_server, others))
            case "cut":
                del data[len(data) // 2 :]
            case "version":
                data[8] += 1
            case _:
                data.clear()
        redis_server.execute("SET", key, bytes(data), "KEEPTTL")
        answer = await b.ask()
        assert_miss(answer)
        assert answer.body != other.body
        reason = {"tampered": "mac", "swapped": "mac", "cut": "mac", "version": "version", "empty": "broken"}[how]
        assert b.l2(f"unreadable-{reason}") == 1
        await b.written()
        # What it has filled stands there now.
        async with joining(redis_server.url, b.data) as c:
            assert_hit(await c.ask())
        assert a.data.forwards == 3


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"namespace": "shop"}, {"namespace": "blog"}),
        ({"namespace": "a:b"}, {"namespace": "a", "version": "b"}),
    ],
)
async def test_two_namespaces_do_not_meet(redis_server: Valkey, one: Any, two: Any) -> None:
    """Neither is what one stored found by the other, nor what one purges gone from the other."""
    async with fleet(redis_server.url, 1, **one) as (a,), fleet(redis_server.url, 1, **two) as (b,):
        await filled(a)
        assert_miss(await b.ask())
        await b.written()
        await a.cache.clear()
        assert_hit(await b.ask())
        async with joining(redis_server.url, b.data, **two) as c:
            assert_hit(await c.ask())
        assert len(redis_server.execute("KEYS", "*state")) == 2


async def test_two_versions_share_purges_and_no_responses(redis_server: Valkey) -> None:
    """While two releases run side by side, neither is served the other's pages, and each hears the other's purges."""
    async with fleet(redis_server.url, 1, version="1") as (a,), joining(redis_server.url, a.data, version="2") as b:
        await filled(a)
        assert_miss(await b.ask())
        await b.written()
        assert_hit(await a.ask())
        assert (await b.ask(method="PUT")).headers["cacheinval-purge"] == "done"
        await eventually(lambda: a.statistics.applied == 1, "the purge")
        assert_miss(await a.ask())
        assert len(redis_server.execute("KEYS", "*state")) == 1


@pytest.mark.parametrize("namespace", ["}", "{a}b", "white space\r\n", "ключ", "*", "%7D", "a" * 300, "x\x00y"])
async def test_a_hostile_namespace_works(redis_server: Valkey, namespace: str) -> None:
    """Braces, white space, newlines, wildcards: purges and stored responses of that name are shared all the same."""
    async with fleet(redis_server.url, namespace=namespace, version="{1}") as (a, b):
        await filled(a)
        assert_hit(await b.ask())
        await a.ask(method="PUT")
        await eventually(lambda: b.statistics.applied == 1, "the purge")
        assert_miss(await b.ask())


async def test_a_soft_purge_lets_all_serve_stale_while_one_refreshes(redis_server: Valkey) -> None:
    """Replicas that have it near, and one that finds it in L2, answer stale; one handler runs."""
    policy = CachePolicy(ttl=60, stale_while_revalidate=60, jitter=0, early_refresh=0)
    async with fleet(redis_server.url, 3, policy=policy) as (a, b, c):
        await filled(a)
        assert_hit(await b.ask())
        a.data.gate = asyncio.Event()
        await a.cache.invalidate("item:a", soft=True)
        await eventually(lambda: {node.statistics.applied for node in (a, b, c)} == {1}, "the purge everywhere")
        for node in (a, b, c):
            answer = await node.ask()
            assert_stale(answer)
            assert b'"version":0' in answer.body
        assert c.tier() == "l2"
        await eventually(lambda: a.data.forwards == 2, "the refresh")
        a.data.versions["a"] = 1
        a.data.gate.set()
        await eventually(
            lambda: sum(sum(node.statistics.refreshes.values()) for node in (a, b, c)) == 3, "the end of all refreshes"
        )
        assert sorted(key for node in (a, b, c) for key in node.statistics.refreshes) == ["found", "found", "stored"]
        for node in (a, b, c):
            assert_hit(await node.ask())
        assert a.data.forwards == 2


async def test_one_that_joins_late_uses_what_is_there_and_refuses_what_was_purged(redis_server: Valkey) -> None:
    """A replica learns which tags were purged before it joined; only what is proved to be untouched is served."""
    async with fleet(redis_server.url, 1) as (a,):
        await filled(a, "/items/kept")
        await filled(a, "/items/purged")
        await a.ask("/items/purged", method="PUT")
        assert len(stored_keys(redis_server)) == 2
        async with joining(redis_server.url, a.data) as late:
            assert_hit(await late.ask("/items/kept"))
            assert late.tier() == "l2"
            assert_miss(await late.ask("/items/purged"))
            assert late.l2("outdated") == 1
        assert [name for _, name in a.data.calls] == ["kept", "purged", "purged"]


async def test_one_that_joins_late_learns_of_many_purges(redis_server: Valkey) -> None:
    """Five thousand tags purged before are learned page by page, and soft ones stay soft."""
    policy = CachePolicy(ttl=60, stale_while_revalidate=60, jitter=0, early_refresh=0)
    async with fleet(redis_server.url, 1, policy=policy) as (a,):
        await filled(a, "/items/kept")
        await filled(a, "/items/soft")
        await filled(a, "/items/hard")
        await a.cache.invalidate("item:soft", soft=True)
        await a.cache.invalidate("item:hard")
        for start in range(0, 5000, 100):
            await a.cache.invalidate(*(f"other:{number}" for number in range(start, start + 100)))
        async with joining(redis_server.url, a.data, policy=policy) as late:
            await eventually(lambda: late.cache._core.engine.replica.floor == 0, "all pages")
            assert_hit(await late.ask("/items/kept"))
            assert_stale(await late.ask("/items/soft"))
            assert_miss(await late.ask("/items/hard"))


async def test_what_may_not_be_stored_is_not_in_the_shared_tier(redis_server: Valkey) -> None:
    """A body over the limit, a `Set-Cookie`, a `no-store`, a status without a policy, a stream that is too long."""

    def routes(node: Node) -> None:
        policy = cached(ttl=60)

        @node.app.get("/large", dependencies=[policy])
        async def large() -> Response:
            return Response(b"x" * 2000)

        @node.app.get("/cookie", dependencies=[policy])
        async def cookie() -> Response:
            return Response(b"mine", headers={"set-cookie": "a=b"})

        @node.app.get("/never", dependencies=[policy])
        async def never() -> Response:
            return Response(b"mine", headers={"cache-control": "no-store"})

        @node.app.get("/missing", dependencies=[policy])
        async def missing() -> Response:
            return Response(b"no", 404)

    async with fleet(redis_server.url, routes=routes, max_body_bytes=1000) as (a, b):
        for path in ("/large", "/cookie", "/never", "/missing"):
            for node in (a, b):
                answer = await node.ask(path)
                assert_miss(answer)
                assert answer.cache is not None
                assert not answer.cache.stored
        assert stored_keys(redis_server) == []
        assert b.l2("hit") == 0


async def test_a_refill_takes_the_place_of_what_is_there(redis_server: Valkey) -> None:
    """After a purge and a new fill L2 has the new response, under the same key."""
    async with fleet(redis_server.url) as (a, b):
        await filled(a)
        await a.ask(method="PUT")
        await filled(a)
        assert len(stored_keys(redis_server)) == 1
        await eventually(lambda: b.statistics.applied == 1, "the purge")
        answer = await b.ask()
        assert_hit(answer)
        assert b'"version":1' in answer.body


async def test_the_app_is_not_asked_for_what_the_shared_tier_has(
    redis_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once L2 has answered a path on a replica, the next hit there needs no routing; a purge is seen all the same."""
    ahead, run = list[bool](), ReadAhead.run

    async def noted(self: ReadAhead, *given: Any) -> None:
        await run(self, *given)
        ahead.append(self._ahead)

    monkeypatch.setattr(ReadAhead, "run", noted)
    async with fleet(redis_server.url) as (a, b):
        first = await filled(a)
        for times in range(3):
            internals_of(b.cache).engine.store.clear()
            answer = await b.ask()
            assert_hit(answer)
            assert (answer.body, b.tier()) == (first.body, "l2")
            assert ahead == [True] * times
            assert_hit(await b.ask())
            assert b.l2("hit") == times + 1
        assert a.data.calls == [(0, "a")]
        await b.cache.invalidate("item:a", wait="all")
        assert_miss(await b.ask())
        assert ahead == [True, True, False]
        assert len(a.data.calls) == 2
