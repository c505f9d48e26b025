"""`cacheinval stats` shows every replica, also the silent ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.fleets import told, watched
from tests.helpers.fleet import eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def test_stats_shows_each_replica_and_the_sum(redis_server: Valkey, cli: Any) -> None:
    """A row for each, by host and process; here both are one process, with what either counts."""
    async with watched(redis_server) as (one, two):
        await one.ask()
        await one.ask()
        await one.written()
        await two.ask()
        await told(redis_server, one, two)
        shown = await cli("stats")
        assert shown.code == 0
        rows = [line.split() for line in shown.out.splitlines()]
        assert rows[0][:5] == ["cacheinval:", "term", "1,", "0", "purges,"]
        assert sorted((row[3], row[4]) for row in rows[2:4]) == [("1", "100.0%"), ("2", "50.0%")]
        assert rows[4][:3] == ["all", "3", "66.7%"]
        data = (await cli("stats", "--json")).json
        assert data["log"]["term"] == 1
        assert sorted(each["summary"]["statistics"]["hits"] for each in data["replicas"]) == [1, 1]
        assert {each["live"] for each in data["replicas"]} == {True}
        assert {each["summary"]["statistics"]["routes"]["GET /items/{name}"]["hits"] for each in data["replicas"]} == {
            1
        }


async def test_a_replica_without_a_summary_is_shown_with_its_lease(redis_server: Valkey, cli: Any) -> None:
    """One of an earlier release, or that has just started."""
    async with watched(redis_server, 1):
        shown = await cli("stats")
        assert shown.code == 0
        assert shown.out.splitlines()[2].split()[3:] == ["–"] * 9
        assert (await cli("stats", "--json")).json["replicas"][0]["summary"] is None


async def test_a_replica_that_went_silent_has_no_lease(redis_server: Valkey, cli: Any) -> None:
    """It is shown until it is forgotten."""
    async with watched(redis_server, 1) as (node,):
        await told(redis_server, node)
        ack = redis_server.execute("HGETALL", "{cacheinval}:acks")
        (name,) = [str(each) for each in ack if each != "!"]
        redis_server.execute("HSET", "{cacheinval}:acks", name, "0 1000000 2000000")
        shown = (await cli("stats", "--json")).json
        assert shown["replicas"][0]["live"] is False
        assert "none" in (await cli("stats")).out.splitlines()[2]


async def test_a_namespace_that_nobody_uses_is_told(redis_server: Valkey, cli: Any) -> None:
    """With what to check, and nothing is made there."""
    shown = await cli("stats", "--namespace", "typo")
    assert (shown.code, shown.out) == (1, "")
    assert "'typo'" in shown.err
    assert redis_server.client.keys("*") == []


async def test_hostile_names_of_replicas_do_not_reach_the_terminal(redis_server: Valkey, cli: Any) -> None:
    """Whoever can write to Redis cannot move the cursor of who looks."""
    async with watched(redis_server, 1) as (node,):
        node.app.title = "\x1b]0;owned\x07 \x1b[2J"
        await eventually(lambda: node.live, "the lease")
        await told(redis_server, node)
        redis_server.execute("HSET", "{cacheinval}:acks", "\x1b[31m", "0 1 1")
        shown = await cli("stats", columns=200)
        assert "\\x1b]0;owned\\x07" in shown.out
        assert "\x1b" not in shown.out
        assert "\x1b" not in (await cli("stats", "--json")).out
