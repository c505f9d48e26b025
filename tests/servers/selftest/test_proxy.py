"""The proxy passes on what it gets, until it is told otherwise."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio
from redis import exceptions

from tests.servers import Proxy, Valkey, tcp_proxy, tls_terminator, until


@pytest.fixture
def proxy(redis_server: Valkey) -> Generator[Proxy]:
    """A proxy in front of the server."""
    with tcp_proxy(redis_server.port) as made:
        yield made


def connected(proxy: Proxy, **options: float) -> redis.Redis:
    """A client with one connection through the proxy, which does not retry."""
    client = redis.Redis.from_url(proxy.url, single_connection_client=True, **{"socket_timeout": 0.5, **options})
    client.ping()
    return client


def test_bytes_and_connections_are_counted(proxy: Proxy) -> None:
    """A value of a megabyte goes through in both directions, whole, and is counted."""
    value = os.urandom(1 << 20)
    with connected(proxy, socket_timeout=5) as client:
        client.set("name", value, ex=60)
        assert proxy.bytes_to_server > len(value) > proxy.bytes_to_client > 0
        assert client.get("name") == value
        assert proxy.bytes_to_client > len(value)
        assert proxy.open == 1
        before = proxy.connections
    with connected(proxy):
        assert proxy.connections == before + 1
    until(lambda: proxy.open == 0, "both are closed")


def test_refusing_leaves_open_connections_alone(proxy: Proxy) -> None:
    """New connections are refused; the open one works; healed, new ones are accepted."""
    with connected(proxy) as client:
        proxy.refuse()
        with pytest.raises(exceptions.ConnectionError, match="refused"):
            connected(proxy)
        assert client.ping()
        proxy.heal()
        connected(proxy).close()


def test_a_black_hole_swallows_and_closes_nothing(proxy: Proxy) -> None:
    """Open and new connections hang; what was swallowed arrives at the server after it has healed."""
    with connected(proxy) as client:
        proxy.black_hole()
        with pytest.raises(exceptions.TimeoutError):
            client.set("name", "late", ex=60)
        with pytest.raises(exceptions.TimeoutError):
            connected(proxy)
    with redis.Redis.from_url(proxy.url.replace(str(proxy.port), str(proxy.target)), decode_responses=True) as direct:
        assert direct.get("name") is None
        proxy.heal()
        assert until(lambda: direct.get("name"), "the command that was under way") == "late"
    connected(proxy).close()


@pytest.mark.anyio
async def test_a_black_hole_towards_clients_makes_a_subscriber_deaf(proxy: Proxy, redis_server: Valkey) -> None:
    """The server goes on to know the subscriber, which hears nothing and sees no error; healed, it hears all."""
    async with redis.asyncio.Redis.from_url(proxy.url) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("channel")
        assert (await pubsub.get_message(timeout=5) or {})["type"] == "subscribe"
        proxy.black_hole("to_client")
        assert redis_server.execute("PUBLISH", "channel", "hello") == 1
        assert await pubsub.get_message(timeout=0.1) is None
        proxy.heal()
        assert (await pubsub.get_message(timeout=5) or {})["data"] == b"hello"


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_delays_add_up_by_direction(proxy: Proxy, direction: str) -> None:
    """A command takes as much longer as its direction is delayed, and no longer once healed."""
    with connected(proxy, socket_timeout=5) as client:
        proxy.delay(**{direction: 0.1})
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began >= 0.1
        proxy.heal()
        before = proxy.bytes_to_client
        quickest = min(_seconds(client) for _ in range(5))
        assert quickest < 0.1
        assert proxy.bytes_to_client > before


def test_pieces_are_delayed_side_by_side(proxy: Proxy) -> None:
    """The delay is a distance, not a bandwidth: ten commands in flight take hardly longer than one."""
    clients = [connected(proxy, socket_timeout=5) for _ in range(10)]
    proxy.delay(to_server=0.2)
    began = time.monotonic()
    with ThreadPoolExecutor(len(clients)) as pool:
        assert all(pool.map(lambda client: client.ping(), clients))
    assert 0.2 <= time.monotonic() - began < 1.5


def test_a_reset_is_seen_at_once(proxy: Proxy) -> None:
    """Waiting clients get a reset, not an end; the proxy goes on accepting."""
    with connected(proxy, socket_timeout=5) as client:
        proxy.reset()
        assert proxy.open == 0
        assert client.connection is not None
        with pytest.raises(exceptions.ConnectionError, match="reset"):
            client.connection.read_response()
        connected(proxy).close()


def test_new_connections_go_to_the_new_target(proxy: Proxy, redis_server: Valkey) -> None:
    """What is set while it runs holds for what connects afterwards."""
    with tcp_proxy(proxy.port) as second:
        connected(second).close()
        before = proxy.connections
        second.target = redis_server.port
        connected(second).close()
        assert proxy.connections == before


def test_a_dead_target_ends_the_connection(proxy: Proxy) -> None:
    """A client is told when nobody listens behind the proxy."""
    proxy.target = 1
    with pytest.raises(exceptions.ConnectionError):
        connected(proxy)


@pytest.mark.anyio
async def test_a_terminator_speaks_tls(redis_server: Valkey) -> None:
    """Its URL works as it is; without its CA the certificate is not trusted; TLS connections are reset as others are."""
    with tls_terminator(redis_server.port) as terminator:
        assert terminator.url.startswith("rediss://")
        async with redis.asyncio.Redis.from_url(terminator.url) as client:
            assert await client.ping()
            terminator.reset()
            with pytest.raises(exceptions.ConnectionError):
                await client.ping()
            assert await client.ping()
        async with redis.asyncio.Redis.from_url(terminator.url.partition("?")[0]) as client:
            with pytest.raises(exceptions.ConnectionError) as caught:
                await client.ping()
            assert isinstance(caught.value.__cause__ or caught.value.__context__, ssl.SSLCertVerificationError)


def _seconds(client: redis.Redis) -> float:
    began = time.monotonic()
    client.ping()
    return time.monotonic() - began
