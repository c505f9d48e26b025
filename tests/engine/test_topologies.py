"""The same promises over every way to reach Redis: protocols, sockets, passwords, TLS, Sentinel, Cluster, own clients."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.connections.away import Away
from fastapi_cacheinval.connections.urls import by_client, by_url
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.engine.calls import connections
from tests.helpers.fleet import PATIENT, QUICK, Node, eventually, fleet, joining, nothing_is_left_for_ever
from tests.helpers.trouble import (
    agreed,
    filled_everywhere,
    never_stale,
    promptly,
    purged,
    says_disconnected,
    written,
)
from tests.servers import Cluster, Sentinels, Valkey, cluster, sentinels, tcp_proxy, tls_terminator

pytestmark = pytest.mark.anyio

# The rules of a user that the documentation gives, for the namespace `shop`.
RULES = (
    (Path(__file__).parents[2] / "docs" / "replicas.md")
    .read_text()
    .partition("ACL SETUSER shop on >a-long-password ")[2]
    .partition("```")[0]
    .split()
)
SHOP: dict[str, Any] = {"namespace": "shop"}


async def promised(a: Node, b: Node, source: Any, **options: Any) -> None:
    """What one fills the other serves, one purges and the other obeys, one forwards and the other waits; one joins."""
    await asyncio.gather(a.in_touch(), b.in_touch())
    await filled_everywhere(a, b)
    assert b.l2("hit") == 1
    await written(a)
    await eventually(lambda: agreed(a, b), "the purge")
    await never_stale([a, b], 1, seconds=0)
    a.data.gate = asyncio.Event()
    calls = [node.call("/items/burst") for node in (a, b) for _ in range(5)]
    await eventually(lambda: (a.data.calls[-1][1]) == "burst", "the leader")
    a.data.gate.set()
    answers = [await call.answer() for call in calls]
    assert len({answer.body for answer in answers}) == 1
    assert [name for _, name in a.data.calls].count("burst") == 1
    await b.cache.invalidate("items")
    await eventually(lambda: agreed(a, b), "the purge")
    assert await a.cache._core.bus.catch_up()
    assert await b.cache._core.bus.catch_up()
    assert await acknowledged(b) == 2
    async with joining(source, a.data, **options) as late:
        await late.in_touch()
        assert_miss(await late.ask("/items/burst"))
    assert a.statistics.resets == b.statistics.resets == 1


async def on_other_loops(client: Any) -> None:
    """A cache over a client of this loop purges on two loops of other threads, one after the other."""
    cache = HTTPCache.from_client(client, namespace="loops", **PATIENT)
    for number in (1, 2):
        receipt = await asyncio.to_thread(lambda: asyncio.run(cache.invalidate("it")))
        assert receipt.seq == number


async def acknowledged(node: Node) -> int:
    """How many replicas have said that they have read as far as this one."""
    bus: Any = node.cache._core.bus
    log = bus._followers[asyncio.get_running_loop()].log
    replica = node.cache._core.engine.replica
    line = LogEntry(replica.term, replica.applied, replica.nonce, (), soft=False, at=0.0)
    return int((await log.behind(line))[1])


@asynccontextmanager
async def pair(source: Any, **options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Two replicas over one source."""
    async with fleet(source, 2, **options) as (a, b):
        yield a, b


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("way", ["tcp", "unix", "database"])
async def test_both_protocols_over_each_socket(redis_server: Valkey, way: str, protocol: int) -> None:
    """RESP2 and RESP3, over TCP and a Unix socket, in a database of its own."""
    url = {"tcp": redis_server.url, "unix": redis_server.unix_url, "database": redis_server.url_for(db=5)}[way]
    url = f"{url}?protocol={protocol}"
    async with pair(url) as (a, b):
        await promised(a, b, url)


async def test_a_server_with_a_password(redis_server: Valkey) -> None:
    """The password stands in the URL, percent-encoded."""
    with redis_server.configured(requirepass="pass/word@:"):
        try:
            url = redis_server.url_for("", "pass%2Fword%40%3A")
            async with pair(url) as (a, b):
                await promised(a, b, url)
        finally:
            redis_server.execute("AUTH", "pass/word@:")


@pytest.mark.parametrize(("protocol", "version"), [(2, ""), (3, "2026-11")])
async def test_a_user_who_may_do_what_is_needed_and_nothing_else(
    redis_server: Valkey, protocol: int, version: str, caplog: Any
) -> None:
    """The commands, the keys and the channels that the documentation names are enough, with and without a version."""
    url = redis_server.add_user("shop", "secret", *RULES) + f"?protocol={protocol}"
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with pair(url, **SHOP, version=version) as (a, b):
            await promised(a, b, url, **SHOP, version=version)
    assert caplog.records == []


async def test_without_info_it_works_and_says_once_what_is_lost(redis_server: Valkey, caplog: Any) -> None:
    """A user without INFO: all that does not need to tell one server from another is the same."""
    url = redis_server.add_user("shop", "secret", *RULES, "-info")
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with pair(url, **SHOP) as (a, b):
            await promised(a, b, url, **SHOP)
            redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
            await written(a)
            await eventually(lambda: agreed(a, b), "the purge")
            redis_server.execute("FLUSHALL")
            await written(a)
            await eventually(lambda: agreed(a, b), "the new term")
    said = [record.getMessage() for record in caplog.records]
    # The flush is a reset on each of the two, which is said as well.
    lost = [text for text in said if "is given up" not in text]
    assert len(lost) == 3, said
    assert len(said) == 5, said
    assert all("may not run INFO" in text and "+info" in text for text in lost)


@pytest.mark.parametrize("denied", ["-subscribe", "-publish"])
async def test_without_messages_the_heartbeat_bounds_what_is_stale(
    redis_server: Valkey, denied: str, caplog: Any
) -> None:
    """A user who may not subscribe, or not publish: purges have their numbers and are obeyed within the bound."""
    url = redis_server.add_user("shop", "secret", *RULES, denied)
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with pair(url, **SHOP, **QUICK) as (a, b):
            await asyncio.gather(a.in_touch(), b.in_touch())
            await filled_everywhere(a, b)
            await written(a)
            await eventually(lambda: agreed(a, b), "the purge")
            await never_stale([a, b], 1)
            if denied == "-subscribe":
                await eventually(lambda: len(caplog.records) == 2, "a warning each")
                await promptly(a)
        assert all("no subscription" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("shop:wrong", "WRONGPASS|invalid username-password"),
        ("nobody:secret", "WRONGPASS|invalid username-password"),
        ("mute:secret", "no permissions"),
        ("blind:secret", "No permissions to access a key|ACL failure|no permissions"),
    ],
)
async def test_a_redis_that_refuses_is_named_in_the_log_and_the_app_stays_up(
    redis_server: Valkey, user: str, says: str, caplog: Any
) -> None:
    """A wrong password, a user who may not run scripts, or not touch the keys: the server's own word, once."""
    redis_server.add_user("shop", "secret", "~*", "&*", "+@all")
    redis_server.add_user("mute", "secret", "~*", "&*", "+@all", "-eval", "-evalsha")
    redis_server.add_user("blind", "secret", "~other:*", "&*", "+@all")
    name, _, password = user.partition(":")
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with fleet(redis_server.url_for(name, password), 1, **QUICK) as (node,):
            assert says_disconnected(await promptly(node))
            assert_hit(await promptly(node))
            answer = await promptly(node, method="PUT")
            assert answer.headers["cacheinval-purge"] == "queued"
            await node.out_of_touch()
    (record,) = [record for record in caplog.records if record.name == "fastapi_cacheinval.bus"]
    assert re.search(says, record.getMessage()), record.getMessage()
    assert "secret" not in caplog.text


async def test_tls_by_the_url(redis_server: Valkey) -> None:
    """`rediss://…?ssl_ca_certs=` is all there is to say, for the log, the subscription and L2."""
    with tls_terminator(redis_server.port) as terminator:
        async with pair(terminator.url) as (a, b):
            await promised(a, b, terminator.url)


async def test_tls_without_its_authority_is_refused(redis_server: Valkey, caplog: Any) -> None:
    """A certificate that nobody vouches for: out of touch, with the reason, and nothing is sent."""
    with tls_terminator(redis_server.port) as terminator, caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with fleet(terminator.url.partition("?")[0], 1) as (node,):
            assert says_disconnected(await promptly(node))
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert redis_server.execute("KEYS", "*") == []


# -- a client of the user's own ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "resp3", "pool", "small pool", "single", "patient"])
async def test_a_client_of_ones_own(redis_server: Valkey, kind: str) -> None:
    """However it was made, its settings are kept, and it is still open when the caches have stopped."""
    port = redis_server.port
    match kind:
        case "plain":
            client = Redis(port=port)
        case "resp3":
            client = Redis(port=port, protocol=3)
        case "pool":
            client = Redis.from_pool(BlockingConnectionPool(port=port, max_connections=40, timeout=1))
        case "single":
            client = Redis(port=port, single_connection_client=True)
        case "small pool":
            # Room for both subscriptions of each replica, and for one call at a time.
            client = Redis.from_pool(BlockingConnectionPool(port=port, max_connections=7, timeout=2))
        case _:
            client = Redis(port=port, socket_timeout=None, socket_connect_timeout=None)
    try:
        async with pair(client) as (a, b):
            await promised(a, b, client)
        assert await client.ping()
        assert await client.info("clients")
    finally:
        await client.aclose()


async def test_a_silent_server_behind_a_client_of_ones_own_keeps_nobody_waiting(redis_server: Valkey) -> None:
    """A client that would wait for ever, or try ten times, is given up after `redis_timeout` all the same."""
    with tcp_proxy(redis_server.port) as proxy:
        client = Redis(port=proxy.port, socket_timeout=None)
        try:
            async with fleet(client, 1, **QUICK) as (node,):
                await node.in_touch()
                await promptly(node)
                proxy.black_hole()
                await promptly(node, "/items/b")
                assert (await promptly(node, method="PUT")).headers["cacheinval-purge"] == "queued"
                await node.out_of_touch()
                for name in "cde":
                    await promptly(node, f"/items/{name}")
                proxy.heal()
                await node.in_touch()
                await eventually(lambda: not node.statistics.queue_length, "the queued purge")
        finally:
            await client.aclose()


# -- Sentinel -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched() -> Generator[Sentinels]:
    """A primary, two replicas and three Sentinels."""
    with sentinels(replicas=2) as made:
        yield made


def sentinel_url(watched: Sentinels, database: int = 0) -> str:
    """The URL that names all Sentinels."""
    hosts = ",".join(f"{host}:{port}" for host, port in watched.addresses)
    return f"redis+sentinel://{hosts}/{watched.name}/{database}"


async def test_sentinels_by_url_and_by_client(watched: Sentinels) -> None:
    """The primary that Sentinels name is used, by URL and by a client of one's own."""
    url = sentinel_url(watched, 3)
    async with pair(url) as (a, b):
        await promised(a, b, url)
    nothing_is_left_for_ever(watched.primary.client)
    asked = Sentinel(watched.addresses, socket_timeout=0.5)
    client = asked.master_for(watched.name)
    try:
        async with pair(client) as (a, b):
            await promised(a, b, client)
        assert await client.ping()
        await on_other_loops(client)
    finally:
        await client.aclose()
        for each in asked.sentinels:
            await each.aclose()


async def test_after_a_failover_purges_flow_again_and_nothing_is_stale(watched: Sentinels) -> None:
    """The primary is killed: out of touch, mutations queue, and with the new primary comes a new term for all."""
    async with pair(sentinel_url(watched), **QUICK) as (a, b):
        await asyncio.gather(a.in_touch(), b.in_touch())
        await filled_everywhere(a, b)
        term = a.statistics.term
        failing = asyncio.create_task(asyncio.to_thread(watched.fail_over))
        await eventually(lambda: not a.statistics.connected, "the loss", seconds=10)
        assert (await promptly(a, method="PUT")).headers["cacheinval-purge"] == "queued"
        await never_stale([a], 1)
        await failing
        await eventually(lambda: agreed(a, b) and not a.statistics.queue_length, "the new primary")
        assert a.statistics.term > term
        await never_stale([a, b], 1)
        await written(b)
        await eventually(lambda: agreed(a, b), "the purge")
        await never_stale([a, b], 2)
        await eventually(lambda: b.statistics.purges.get("published", 0) >= 1, "a number")


async def test_without_any_sentinel_the_app_starts(caplog: Any) -> None:
    """Nobody to ask for the primary: out of touch, and requests are answered."""
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        began = time.monotonic()
        async with fleet("redis+sentinel://127.0.0.1:1,127.0.0.1:2/primary", 1, **QUICK) as (node,):
            assert time.monotonic() - began < 3
            assert says_disconnected(await promptly(node))
    assert "primary" in caplog.text


# -- Cluster --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three() -> Generator[Cluster]:
    """Three primaries that share the slots."""
    with cluster() as made:
        yield made


@pytest.fixture
def clean(three: Cluster) -> Cluster:
    """The cluster without data."""
    for node in three.nodes:
        node.revive()
        node.execute("FLUSHALL")
    three.wait_until_ok()
    return three


def cluster_url(three: Cluster) -> str:
    """The URL that names all nodes."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in three.nodes)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_cluster_by_url(clean: Cluster, protocol: int) -> None:
    """Purges reach all whichever node they are subscribed at; stored responses are spread over the shards."""
    url = f"{cluster_url(clean)}?protocol={protocol}"
    async with pair(url) as (a, b):
        await promised(a, b, url)
        assert (await a.cache.invalidate("item:a", wait="all")).replicas == 2
        for number in range(30):
            await promptly(a, f"/items/{number}")
        await a.written(32)
        for number in range(30):
            assert_hit(await promptly(b, f"/items/{number}"))
        holding = [node for node in clean.nodes if any(key.endswith(":r") for key in node.execute("KEYS", "*"))]
        assert len(holding) == 3
    for node in clean.nodes:
        nothing_is_left_for_ever(node.client)


async def test_a_cluster_by_a_client_of_ones_own(clean: Cluster) -> None:
    """One cluster client for all, still open afterwards."""
    client = RedisCluster(host="127.0.0.1", port=clean.nodes[0].port)
    try:
        async with pair(client) as (a, b):
            await promised(a, b, client)
        assert await client.ping()
        await on_other_loops(client)
    finally:
        await client.aclose()


@pytest.mark.parametrize("given", ["url", "client"])
async def test_a_cluster_that_was_slow_to_describe_itself_is_left_without_a_connection(
    clean: Cluster, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look takes too long and is cancelled, the next call goes through, and closing closes all."""
    theirs = RedisCluster(host="127.0.0.1", port=clean.nodes[0].port)
    parser: Any = type(theirs.commands_parser)
    genuine, slow = parser.initialize, asyncio.Event()

    async def initialize(self: Any, *arguments: Any, **options: Any) -> None:
        if not slow.is_set():
            slow.set()
            await asyncio.Event().wait()
        await genuine(self, *arguments, **options)

    monkeypatch.setattr(parser, "initialize", initialize)
    connect = by_url(cluster_url(clean), 1.0, 2**20) if given == "url" else by_client(theirs, 1.0, 2**20)
    client = connect()
    try:
        with pytest.raises(Away):
            await client.command("SET", b"it", b"value", "EX", 60)
        assert slow.is_set()
        assert await client.command("SET", b"it", b"value", "EX", 60)
    finally:
        await client.close()
    await eventually(lambda: sum(map(connections, clean.nodes)) == 0, "the end of all connections")


@pytest.mark.parametrize("atomically", [False, True])
async def test_the_logs_slot_moves_under_load(clean: Cluster, atomically: bool) -> None:
    """While the slot of the log and of a stored response move to other shards requests go on, and nothing is stale."""
    async with pair(cluster_url(clean)) as (a, b):
        await asyncio.gather(a.in_touch(), b.in_touch())
        await purged(a, "other")
        await filled_everywhere(a, b)
        moving = True
        state = Cluster.slot_of("{cacheinval}:state")

        async def loads() -> int:
            rounds = 0
            while moving or rounds < 3:
                a.data.versions["a"] += 1
                version = a.data.versions["a"]
                await purged(a, "item:a")
                await never_stale([a], version, seconds=0)
                await eventually(lambda: agreed(a, b), "the purge")
                await never_stale([a, b], version, seconds=0)
                rounds += 1
            return rounds

        loading = asyncio.create_task(loads())
        for _ in range(2):
            to = clean.other_than(clean.owner(state))
            await asyncio.to_thread(clean.move_slot, state, to, atomically=atomically)
        moving = False
        assert await loading >= 3
        version = a.data.versions["a"]
        await a.ask()
        key = next(key for node in clean.nodes for key in node.execute("KEYS", "cacheinval:*") if key.endswith(":r"))
        slot = Cluster.slot_of(key)
        await asyncio.to_thread(clean.move_slot, slot, clean.other_than(clean.owner(slot)), atomically=atomically)
        async with joining(cluster_url(clean), a.data) as late:
            await late.in_touch()
            answer = await late.ask()
            assert f'"version":{version}' in answer.body.decode()


async def test_a_shard_that_is_lost_takes_only_what_it_holds(clean: Cluster) -> None:
    """The node of the log is away: out of touch as with a single Redis; when it is back all goes on."""
    state = Cluster.slot_of("{cacheinval}:state")
    async with pair(cluster_url(clean), **QUICK) as (a, b):
        await asyncio.gather(a.in_touch(), b.in_touch())
        await filled_everywhere(a, b)
        owner = clean.owner(state)
        owner.pause()
        await asyncio.gather(a.out_of_touch(), b.out_of_touch())
        assert (await promptly(a, method="PUT")).headers["cacheinval-purge"] == "queued"
        await never_stale([a, b], 1)
        owner.resume()
        await eventually(lambda: agreed(a, b) and not a.statistics.queue_length, "the log")
        await never_stale([a, b], 1)


async def test_a_cluster_that_is_not_there_keeps_nobody_waiting(caplog: Any) -> None:
    """No node to be reached at the start: the app starts and answers."""
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        began = time.monotonic()
        async with fleet("redis+cluster://127.0.0.1:1,127.0.0.1:2", 1, **QUICK) as (node,):
            assert time.monotonic() - began < 3
            assert says_disconnected(await promptly(node))
            assert (await promptly(node, method="PUT")).headers["cacheinval-purge"] == "queued"
            await node.cache.stop()
    assert "out of touch" in caplog.text
