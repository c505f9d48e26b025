"""`cacheinval doctor` finds on a real server what is wrong with it, and exits so that a script knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cli.fleets import told, watched
from tests.servers import Valkey, replicated, until

pytestmark = pytest.mark.anyio


def _levels(data: Any) -> dict[str, str]:
    return {each["check"]: each["level"] for each in data["findings"]}


@contextmanager
def _evicting(server: Valkey, policy: str) -> Iterator[None]:
    """A server whose memory has a bound."""
    server.execute("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", policy)
    try:
        yield
    finally:
        server.execute("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")


@contextmanager
def _user(server: Valkey, *rules: str) -> Iterator[str]:
    """The URL of a user `app` of a server who may do just this."""
    server.execute("ACL", "SETUSER", "app", "on", ">pw", *rules)
    try:
        yield server.url.replace("redis://", "redis://app:pw@")
    finally:
        server.execute("ACL", "DELUSER", "app")


async def test_a_server_as_it_should_be_passes(redis_server: Valkey, cli: Any) -> None:
    """With a bound for its memory and the policy that the documentation names, `--strict` finds nothing."""
    with _evicting(redis_server, "volatile-lru"):
        async with watched(redis_server) as nodes:
            await told(redis_server, *nodes)
            shown = await cli("doctor", "--strict", "--json")
            levels = _levels(shown.json)
            # What a busy machine takes is not the server's fault.
            levels.pop("latency")
            assert set(levels.values()) == {"ok"}
            assert len(levels) == 16
            assert "ok    access: The user 'default' may do all" in (await cli("doctor")).out


async def test_what_is_wrong_is_told_with_what_to_do(redis_server: Valkey, cli: Any) -> None:
    """An eviction policy that may take the log is a warning, which fails only where that is asked for."""
    with _evicting(redis_server, "allkeys-lru"):
        async with watched(redis_server) as nodes:
            await told(redis_server, *nodes)
            shown = await cli("doctor", columns=40)
            assert shown.code == 0
            assert "warn  eviction" in shown.out
            assert "CONFIG SET maxmemory-policy volatile-lru" in " ".join(shown.out.split())
            assert max(map(len, shown.out.splitlines())) <= 40
            assert (await cli("doctor", "--strict")).code == 1


async def test_a_namespace_without_replicas_fails(redis_server: Valkey, cli: Any) -> None:
    """And nothing is made there by looking."""
    shown = await cli("doctor", "--json", "--namespace", "typo")
    assert shown.code == 1
    assert _levels(shown.json)["log"] == "error"
    assert redis_server.client.keys("*") == []


async def test_a_user_who_may_look_at_little_sees_what_is_unknown(redis_server: Valkey, cli: Any) -> None:
    """No INFO, no CONFIG, no ACL: that is said of each, and nothing is made up."""
    allowed = ("~{cacheinval}:*", "+time", "+hmget", "+hgetall", "+xlen", "+zcard", "+mget")
    with _user(redis_server, *allowed) as url:
        async with watched(redis_server, 1) as nodes:
            await told(redis_server, *nodes)
            shown = await cli("doctor", "--json", url=url)
            levels = _levels(shown.json)
            assert shown.code == 0
            assert {name for name, level in levels.items() if level == "unknown"} == {
                "version", "role", "access", "memory", "eviction", "persistence", "failover",
            }  # fmt: skip
            assert levels["leases"] == "ok"


@pytest.mark.parametrize(
    ("command", "level"),
    [
        ("sadd", "warning"),
        ("srem", "warning"),
        ("exists", "warning"),
        ("pexpire", "error"),
        ("zcard", "error"),
        ("zrem", "error"),
        ("zscore", "error"),
        ("zrevrangebyscore", "error"),
    ],
)
async def test_every_command_of_the_rule_is_asked_about(
    command: str, level: str, redis_server: Valkey, cli: Any
) -> None:
    """Those of `wait="all"` alone are missed without harm."""
    with _user(redis_server, "~*", "&*", "+@all", f"-{command}") as url:
        async with watched(redis_server, 1):
            shown = await cli("doctor", "--json", url=url)
            (access,) = [each for each in shown.json["findings"] if each["check"] == "access"]
            assert (access["level"], access["cure"].split(",")[0]) == (level, f"ACL SETUSER app +{command}")


async def test_a_user_who_may_not_do_what_a_replica_does_is_told_the_rule(redis_server: Valkey, cli: Any) -> None:
    """By the server's own word, with nothing run."""
    redis_server.execute("ACL", "LOG", "RESET")
    with _user(redis_server, "~*", "&*", "+@all", "-xadd", "-subscribe") as url:
        async with watched(redis_server, 1) as nodes:
            await told(redis_server, *nodes)
            shown = await cli("doctor", "--json", url=url)
            (access,) = [each for each in shown.json["findings"] if each["check"] == "access"]
            assert shown.code == 1
            assert access["level"] == "error"
            assert "may not run xadd, subscribe" in access["found"]
            assert "ACL SETUSER app +xadd +subscribe" in access["cure"]
            assert redis_server.execute("ACL", "LOG") == []


async def test_a_user_who_may_not_read_the_replicas_is_told_so(redis_server: Valkey, cli: Any) -> None:
    """What is known of the server is still shown."""
    with _user(redis_server, "~other:*", "+@all") as url:
        async with watched(redis_server, 1):
            shown = await cli("doctor", "--json", url=url)
            assert shown.code == 1
            assert _levels(shown.json)["replicas"] == "error"
            assert _levels(shown.json)["version"] == "ok"


async def test_a_server_that_others_follow_has_to_refuse_writes_alone(cli: Any) -> None:
    """`min-replicas-to-write` is looked at where there is a replica, and a URL that leads to the replica fails."""
    with replicated() as pair:
        until(lambda: pair.primary.info("replication")["connected_slaves"] == 1, "a replica")
        assert _levels((await cli("doctor", "--json", url=pair.primary.url)).json)["failover"] == "warning"
        pair.primary.execute("CONFIG", "SET", "min-replicas-to-write", "1")
        assert _levels((await cli("doctor", "--json", url=pair.primary.url)).json)["failover"] == "ok"
        shown = await cli("doctor", "--json", url=pair.replica.url)
        assert (shown.code, _levels(shown.json)["role"]) == (1, "error")
