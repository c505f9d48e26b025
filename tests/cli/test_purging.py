"""`cacheinval purge` and `clear` do what they say, ask before they do much, and say what became of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval.core.tag_limits import MOST_PURGE_TAGS
from tests.cli.fleets import told, watched
from tests.helpers.fleet import Node, eventually
from tests.servers import Valkey, group

pytestmark = pytest.mark.anyio


async def _kept(*nodes: Node) -> None:
    for node in nodes:
        await node.ask()
        await node.ask("/items/b")


async def test_a_purge_reaches_every_replica_before_it_returns(redis_server: Valkey, cli: Any) -> None:
    """By tag: what carries it is made anew on either replica, and what does not stays."""
    async with watched(redis_server) as nodes:
        await _kept(*nodes)
        shown = await cli("purge", "item:a")
        assert shown.code == 0
        assert shown.out.startswith("Purged: item:a (term 1, number 1). 2 replicas obeyed it within ")
        hits = [node.statistics.hits for node in nodes]
        await _kept(*nodes)
        assert [node.statistics.hits - before for node, before in zip(nodes, hits, strict=True)] == [1, 2]
        assert nodes[0].data.forwards == 3


async def test_a_purge_by_path_and_a_soft_one(redis_server: Valkey, cli: Any) -> None:
    """JSON has one receipt on each line, and the tags come first; of a whole URL every path that it may mean."""
    async with watched(redis_server, 1) as (node,):
        await _kept(node)
        shown = await cli("purge", "item:b", "--path", "/items/a?x=1", "--soft", "--json")
        first, second = shown.lines
        assert (first["tags"], first["soft"], first["replicas"], first["seq"]) == (["item:b"], True, 1, 1)
        assert second["paths"] == ["/items/a"]
        whole = await cli("purge", "--path", "https://shop.example/items/a", "--json")
        assert "/items/a" in whole.json["paths"]
        await eventually(lambda: node.statistics.applied == 3, "the purges")


async def test_clear_is_asked_about(redis_server: Valkey, cli: Any) -> None:
    """Where nobody can be asked it does nothing, and says what to add."""
    async with watched(redis_server, 1) as (node,):
        await _kept(node)
        refused = await cli("clear")
        assert (refused.code, refused.out) == (2, "")
        assert "add --yes" in refused.err
        assert "namespace cacheinval" in refused.err
        assert node.statistics.applied == 0
        cleared = await cli("clear", "--yes", "--json")
        assert cleared.json["everything"] is True
        assert cleared.json["replicas"] == 1
        await eventually(lambda: node.statistics.applied == 1, "the purge")


async def test_many_tags_are_asked_about_and_few_are_not(redis_server: Valkey, cli: Any) -> None:
    """Over twenty, from arguments or from standard input."""
    async with watched(redis_server, 1) as (node,):
        tags = [f"item:{number}" for number in range(21)]
        assert (await cli("purge", *tags)).code == 2
        assert (await cli("purge", "-", stdin="\n".join(tags))).code == 2
        assert (await cli("purge", "-", stdin="\n\n item:1 \r\nitem:2\n")).out.startswith("Purged: item:1, item:2 (")
        assert "and 16 more" in (await cli("purge", "-", "--yes", stdin="\n".join(tags))).out
        assert node.statistics.applied == 2


async def test_a_million_tags_are_everything_and_that_is_said(redis_server: Valkey, cli: Any) -> None:
    """More than one purge can name: it is not done without a word."""
    async with watched(redis_server, 1):
        tags = b"".join(b"item:%d\n" % number for number in range(1_000_000))
        asked = await cli("purge", "-", stdin=tags)
        assert asked.code == 2
        assert f"1,000,000 tags are more than one purge can name ({MOST_PURGE_TAGS:,}" in asked.err
        assert "everything" in asked.err
        done = await cli("purge", "-", "--yes", "--json", stdin=tags)
        assert (done.json["everything"], done.json["tags"], done.json["seq"]) == (True, [], 1)


@pytest.mark.parametrize("tag", ["\x1b[31mred", "a b\tc", "ü\u202e", "x" * 5000, "half \udc80"])
async def test_hostile_tags_are_purged_and_never_reach_the_terminal(redis_server: Valkey, cli: Any, tag: str) -> None:
    """As the app would normalise them."""
    async with watched(redis_server, 1):
        shown = await cli("purge", "-", stdin=tag.encode("utf-8", "surrogateescape"))
        assert shown.code == 0
        assert shown.out.strip().isprintable()
        assert len(shown.out) < 200


async def test_what_looks_like_a_pattern_is_hinted_at(redis_server: Valkey, cli: Any) -> None:
    """It is one tag, and it is purged as one."""
    async with watched(redis_server, 1):
        shown = await cli("purge", "item:*", "item:{id}")
        assert shown.code == 0
        assert "no pattern" in shown.err
        assert len((await cli("purge", f"{'item:' * 5_000}*")).err) < 1_000
        assert "no template" in shown.err


async def test_nothing_to_purge_is_a_wrong_call(redis_server: Valkey, cli: Any) -> None:
    """Neither no tags, nor none left of them, nor a namespace that nobody uses, make a line in the log."""
    async with watched(redis_server, 1) as (node,):
        assert (await cli("purge")).code == 2
        assert (await cli("purge", "-", stdin="\n")).code == 2
        assert "nothing: no tag is left" in (await cli("purge", "")).out
        typo = await cli("purge", "a", "--namespace", "typo")
        assert typo.code == 1
        assert "'typo'" in typo.err
        assert (await cli("clear", "--yes", "--namespace", "typo")).code == 1
        assert node.statistics.applied == 0
    assert not redis_server.client.keys("*typo*")


async def test_a_replica_that_does_not_obey_in_time_has_its_own_exit_code(redis_server: Valkey, cli: Any) -> None:
    """One that holds a lease and does not read: the purge is written, and it is said not to repeat it."""
    async with watched(redis_server, 1, staleness_bound=0.5):
        # As if it asked the log all the time; four leases are waited for.
        later = int(redis_server.execute("TIME")[0]) + 3600
        redis_server.execute("HSET", "{cacheinval}:acks", "deaf", f"0 {later * 1_000_000} 500000")
        shown = await cli("purge", "item:a")
        assert shown.code == 5
        assert "is written (term 1, number 1)" in shown.err
        assert (await cli("purge", "item:a", "--no-wait")).code == 0


async def test_a_purge_is_confirmed_as_the_replicas_have_theirs_confirmed(cli: Any) -> None:
    """They say so in their summaries: where no replica of the server acknowledges it, the purge is not said to be done."""
    with group(1) as servers:
        primary = servers.servers[0]
        async with watched(primary, 1, confirm_replicas=1) as (node,):
            await told(primary, node)
            done = await cli("purge", "item:a", url=primary.url)
            assert done.out.startswith("Purged: item:a (term 1, number 1).")
            await asyncio.to_thread(servers.part, 1)
            lost = await cli("purge", "item:b", "--no-wait", "--timeout", "0.5", url=primary.url)
            assert (lost.code, lost.out) == (3, "")
            assert "0 of 1 replica(s) of the server have acknowledged it" in lost.err
