"""Each command runs as a user who may do what the page about the command line says, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cli.calls import ROOT
from tests.cli.fleets import told, watched
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

# What any user needs for its keys and to connect, as on the page about replicas.
_KEYS = ("~{cacheinval}:*", "~{cacheinval:*", "~cacheinval:*", "&{cacheinval}:*", "&{cacheinval:*")
_CONNECTS = ("+ping", "+hello", "+auth", "+client|setinfo")


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def _needed(command: str) -> list[str]:
    """The permissions in the row of a command, and those that the row refers to."""
    rows = re.findall(
        r"^\| (`.*) \| (.*) \|$", _page("command-line.md").partition("## What Redis has to allow")[2], re.MULTILINE
    )
    (row,) = [place for place, (commands, _) in enumerate(rows) if f"`{command}`" in commands]
    words = rows[row][1]
    found = re.findall(r"\+\S+(?=[ `])", words.replace("\\|", "|"))
    if "these" in words or "the first row" in words:
        found += re.findall(r"\+\S+(?=[ `])", rows[0][1])
    if "what a replica needs" in words:
        rule = _page("replicas.md").partition("ACL SETUSER")[2].partition("```")[0]
        found += re.findall(r"\+\S+", rule)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("stats",), ("top", "--once"), ("tail", "--no-follow"), ("explain", "/items/a"), ("purge", "item:a"),
        ("purge", "--path", "/items/a"), ("clear", "--yes"),
    ],
    ids=" ".join,
)  # fmt: skip
async def test_a_command_does_with_what_the_page_says(redis_server: Valkey, cli: Any, command: tuple[str, ...]) -> None:
    """It does what it is for, and the server has refused it nothing."""
    allowed = _needed(command[0])
    assert allowed
    url = redis_server.add_user("limited", "any", *_KEYS, "-@all", *_CONNECTS, *allowed)
    try:
        async with watched(redis_server, 1) as nodes:
            await told(redis_server, *nodes)
            redis_server.execute("ACL", "LOG", "RESET")
            shown = await cli(*command, url=url)
            assert (shown.code, redis_server.execute("ACL", "LOG")) == (0, []), shown
    finally:
        redis_server.execute("ACL", "DELUSER", "limited")


async def test_the_doctor_sees_all_with_what_the_page_says(redis_server: Valkey, cli: Any) -> None:
    """Nothing is unknown to it; that the user is none for a replica is what it finds."""
    url = redis_server.add_user("limited", "any", *_KEYS, "-@all", *_CONNECTS, *_needed("doctor"))
    try:
        async with watched(redis_server, 1) as nodes:
            await told(redis_server, *nodes)
            levels = {
                each["check"]: each["level"] for each in (await cli("doctor", "--json", url=url)).json["findings"]
            }
            assert "unknown" not in levels.values()
            assert levels["access"] == "error"
    finally:
        redis_server.execute("ACL", "DELUSER", "limited")


async def test_who_may_not_is_told_where_the_rules_are(redis_server: Valkey, cli: Any) -> None:
    """The page has a heading of that name."""
    url = redis_server.add_user("limited", "any", *_KEYS, "-@all", *_CONNECTS)
    try:
        async with watched(redis_server, 1):
            shown = await cli("stats", url=url)
            assert shown.code == 3
            (heading,) = re.findall(r"'([^']+)' on the documentation's page", " ".join(shown.err.split()))
            assert f"\n## {heading}\n" in _page("command-line.md")
    finally:
        redis_server.execute("ACL", "DELUSER", "limited")
