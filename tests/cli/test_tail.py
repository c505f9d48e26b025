"""`cacheinval tail` shows what the log has, and then each purge with its origin and its delays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.cli.link import linked
from fastapi_cacheinval.cli.purge_lines import Printer
from fastapi_cacheinval.cli.tail import _merged
from fastapi_cacheinval.cli.target import Target
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.engine.process_name import process_name
from tests.cli.fleets import told, watched
from tests.helpers.fleet import PATIENCE, eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def test_the_last_purges_are_shown_with_their_origin_and_delay(redis_server: Valkey, cli: Any) -> None:
    """The oldest of them first; a soft one and one of everything are told apart."""
    async with watched(redis_server) as (one, two):
        await one.cache.invalidate("old")
        await one.cache.invalidate("item:a", soft=True)
        await one.cache.clear()
        await eventually(lambda: two.statistics.applied == 3, "the purges on the other replica")
        await told(redis_server, one, two)
        shown = await cli("tail", "--no-follow", "-n", "2")
        lines = shown.out.splitlines()
        assert [line.split()[1:] for line in lines[:2]] == [
            ["1/2", "soft", "item:a", "from", process_name()],
            ["1/3", "hard", "everything", "from", process_name()],
        ]
        events = (await cli("tail", "--no-follow", "--json")).lines
        assert [(each["seq"], each["tags"], each["origin"]) for each in events if each["event"] == "purge"] == [
            (1, ["old"], process_name()),
            (2, ["item:a"], process_name()),
            (3, [], process_name()),
        ]


async def test_each_replica_tells_its_delay(redis_server: Valkey, cli: Any) -> None:
    """The command is another process than both replicas: either obeys, and says after how long."""
    from tests.cli.calls import Terminal

    async with watched(redis_server) as nodes:
        with Terminal("purge", "item:a", "--no-wait", env={"CACHEINVAL_URL": redis_server.url}) as purge:
            assert await asyncio.to_thread(purge.end) == 0
        for node in nodes:
            await eventually(lambda node=node: node.statistics.applied == 1, "the purge")  # type: ignore[misc]
        await told(redis_server, *nodes)
        purged, *applied = (await cli("tail", "--no-follow", "--json")).lines
        assert purged["origin"] not in ("", process_name())
        assert [(each["event"], each["seq"], each["name"]) for each in applied] == [("applied", 1, process_name())] * 2
        assert all(0 <= each["seconds"] < PATIENCE for each in applied)
        text = (await cli("tail", "--no-follow")).out
        assert "applied by 2: " in text


async def test_purges_are_shown_as_they_happen_and_none_twice(redis_server: Valkey) -> None:
    """What was there before the subscription comes first; an outage between two purges loses none."""
    seen: list[LogEntry | None] = []

    async def follow() -> None:
        target = Target(redis_server.url, "cacheinval", PATIENCE)
        async with linked(target) as link:
            async for line in _merged(link, 10):
                seen.extend([line] if line else [])

    async with watched(redis_server, 1) as (node,):
        await node.cache.invalidate("before")
        following = asyncio.ensure_future(follow())
        await eventually(lambda: len(seen) == 1, "what was there")
        await node.cache.invalidate("now")
        await eventually(lambda: len(seen) == 2, "what happens")
        redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
        await node.cache.invalidate("meanwhile")
        await eventually(lambda: len(seen) == 3, "what happened in between")
        following.cancel()
        await asyncio.wait((following,))
        assert [line.tags for line in seen if line] == [("before",), ("now",), ("meanwhile",)]


async def test_a_log_that_began_anew_during_an_outage_is_shown_from_its_first_line(redis_server: Valkey) -> None:
    """Its numbers begin at 1 again, below those that were shown before."""
    seen: list[LogEntry] = []

    async def follow() -> None:
        async with linked(Target(redis_server.url, "cacheinval", PATIENCE)) as link:
            async for line in _merged(link, 10):
                seen.extend([line] if line else [])

    async with watched(redis_server, 1) as (node,):
        for number in range(5):
            await node.cache.invalidate(f"before:{number}")
        following = asyncio.ensure_future(follow())
        await eventually(lambda: len(seen) == 5, "what was there")
        redis_server.execute("FLUSHALL")
        redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
        await node.cache.invalidate("after")
        await eventually(lambda: len(seen) > 5, "the first line of the new term")
        following.cancel()
        await asyncio.wait((following,))
        assert (seen[5].seq, seen[5].tags) == (1, ("after",))
        assert seen[5].term.number > seen[4].term.number


async def test_nothing_hostile_in_a_purge_reaches_the_terminal(redis_server: Valkey, cli: Any) -> None:
    """Tags, paths and origins as whoever may publish has written them, and a line that is none."""
    from fastapi_cacheinval.bus.entries import encode_payload

    async with watched(redis_server, 1):
        payload = encode_payload(
            ("\x1b[2Jred", "\u202e", *(f"t{n}" * 50 for n in range(50))),
            soft=False,
            trace=(("traceparent", "00-\x1b]0;x\x07-1-01"),),
            origin="\x1b[31mhost/1",
        )
        log = log_keys("cacheinval").log.decode()
        redis_server.execute("XADD", log, "1-0", "n", "x", "m", b"1 1 nonce 1 x 1000000\n" + payload)
        redis_server.execute("XADD", log, "2-0", "n", "x", "m", "garbage")
        redis_server.execute("XADD", log, "3-0", "other", "fields")
        for columns in (40, 200):
            shown = await cli("tail", "--no-follow", columns=columns)
            assert shown.code == 0
            assert "\x1b" not in shown.out
            assert "\u202e" not in shown.out
            assert "\\x1b[2Jred" in shown.out.replace("\n", "")
            assert "and 47 more" in shown.out.replace("\n", "")
            assert len(shown.out) < 1000
        assert "\x1b" not in (await cli("tail", "--no-follow", "--json")).out


def test_a_purge_of_very_many_tags_is_a_bounded_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is counted."""
    from fastapi_cacheinval.core.log_types import Term

    line = LogEntry(Term(1, "n"), 1, "n", tuple(f"tag:{n}" for n in range(8_000)), soft=False, at=0.0)
    Printer(as_json_=True).line(line)
    out = capsys.readouterr().out
    assert '"tags_left_out": 7000' in out
    assert len(out) < 20_000
