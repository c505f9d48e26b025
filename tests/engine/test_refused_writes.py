"""A server that takes no writes: what a replica knows to be newer than L2's copy is not undone by that copy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import Request, Response

from fastapi_cacheinval.engine.own_writes import OwnWrites
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import Node, eventually, fleet
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

STEERED: dict[str, Any] = {"middleware": {"honour_headers": True}}
AGAIN = {"cache-control": "no-cache"}


def routes(node: Node) -> None:
    """A page that carries the tag of its version, and for how long it is fresh."""

    @node.app.api_route("/told", methods=["GET", "HEAD"])
    async def told(request: Request) -> Response:
        version = node.data.versions["told"]
        control = "max-age=0" if version > 1 else "max-age=60"
        headers = {"cache-control": control, "etag": '"1"', "surrogate-key": f"v{version}"}
        return Response("told", headers=headers)


@contextmanager
def refusing(server: Valkey, *commands: str) -> Iterator[None]:
    """The server refuses these commands, in scripts as well."""
    server.execute("ACL", "SETUSER", "default", *(f"-{each}" for each in commands))
    try:
        yield
    finally:
        server.execute("ACL", "SETUSER", "default", *(f"+{each}" for each in commands))


def purged(node: Node) -> bool:
    """Whether a replica has heard of the purge."""
    return bool(node.statistics.applied == 1)


def evict(node: Node) -> None:
    """Let L1 forget all it has."""
    node.cache._core.engine.store.clear()


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("refused", [("set",), ("set", "unlink")], ids="-".join)
@pytest.mark.parametrize("by_headers", [False, True])
async def test_what_is_purged_does_not_come_back(
    redis_server: Valkey, by_headers: bool, refused: tuple[str, ...], evicted: bool
) -> None:
    """The copy in L2 is from before the purge, whatever could not be written since."""
    async with fleet(redis_server.url, count=2, routes=routes, **(STEERED if by_headers else {})) as (a, b):
        path = "/told" if by_headers else "/items/a"
        await a.ask(path)
        await a.written()
        with refusing(redis_server, *refused):
            a.data.versions["told"] = 1
            if by_headers:
                await a.cache.invalidate("v0")
            else:
                await a.ask(path, method="PUT")
            newer = await a.ask(path)
            assert_miss(newer)
            for node in (a, b):
                await eventually(partial(purged, node), "the purge")
                if evicted:
                    evict(node)
                later = await node.ask(path)
                assert later.fields("surrogate-key") == newer.fields("surrogate-key")
                assert by_headers or json.loads(later.body)["version"] == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("refused", [(), ("set",), ("set", "unlink")], ids=lambda each: "-".join(each) or "nothing")
async def test_a_purge_of_a_tag_that_has_just_come_leaves_no_older_copy(
    redis_server: Valkey, refused: tuple[str, ...], method: str
) -> None:
    """Neither while the newer one is on its way to L2, nor where it never comes there."""
    async with fleet(redis_server.url, count=1, routes=routes, **STEERED) as (a,):
        await a.ask("/told")
        await a.written()
        a.data.versions["told"] = 1
        with refusing(redis_server, *refused):
            told = await a.ask("/told", method=method, headers=AGAIN)
            assert told.cache is not None
            assert told.cache.stored
            await a.cache.invalidate("v1")
            assert_miss(await a.ask("/told"))
        evict(a)
        again = await a.ask("/told")
        assert again.fields("surrogate-key") == [b"v1"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("refused", [(), ("unlink",)], ids=["nothing", "unlink"])
async def test_what_the_app_calls_stale_does_not_come_back(
    redis_server: Valkey, refused: tuple[str, ...], method: str
) -> None:
    """The older copy is fresh by what the app has taken back."""
    async with fleet(redis_server.url, count=1, routes=routes, **STEERED) as (a,):
        await a.ask("/told")
        await a.written()
        a.data.versions["told"] = 2
        with refusing(redis_server, *refused):
            await a.ask("/told", method=method, headers=AGAIN)
            evict(a)
            assert_miss(await a.ask("/told"))
        evict(a)
        assert_miss(await a.ask("/told"))


async def test_a_shard_that_comes_back_has_nothing_older(redis_server: Valkey) -> None:
    """What could not be written while the server was silent is let go of before the key is read again."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, count=1, routes=routes, **STEERED, redis_timeout=0.3, staleness_bound=1.5) as (a,):
            await a.ask("/told")
            await a.written()
            a.data.versions["told"] = 1
            proxy.black_hole()
            await a.ask("/told", method="HEAD", headers=AGAIN)
            await eventually(lambda: a.l2("unavailable"), "the write that failed")
            proxy.heal()
            await a.in_touch()
            await a.cache.invalidate("v1")
            evict(a)
            again = await a.ask("/told")
            assert_miss(again)
            assert_hit(await a.ask("/told"))


async def test_a_key_is_read_once_what_is_written_there_has_an_end() -> None:
    """A write that fails is followed by a drop; until one succeeds, each read of the key tries it first."""
    dropped: list[bytes] = []
    refuses = True

    async def drop(key: bytes) -> None:
        dropped.append(key)
        if refuses:
            raise TierUnavailable("refused")

    writes, gate = OwnWrites(drop), asyncio.Event()

    async def written() -> bool:
        await gate.wait()
        return False

    writing = asyncio.create_task(writes.run(written(), b"key"))
    await writes.settle(b"other")
    reading = asyncio.create_task(writes.settle(b"key"))
    await asyncio.sleep(0)
    assert not reading.done()
    gate.set()
    await writing
    with pytest.raises(TierUnavailable):
        await reading
    assert dropped == [b"key", b"key"]
    refuses = False
    await writes.settle(b"key")
    await writes.settle(b"key")
    assert dropped == 3 * [b"key"]
