"""What the page about the command line shows is what the commands print of two real replicas."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fastapi_cacheinval.cli.commands import cacheinval
from fastapi_cacheinval.engine.process_name import host_name
from fastapi_cacheinval.testing import Replicas
from tests.cli.calls import BARE
from tests.helpers.documents import ROOT, blocks
from tests.servers import Valkey, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

PAGE = ROOT / "docs" / "command-line.md"
SHOWN = [block.text for block in blocks(None, language="text") if block.page == PAGE]
# What differs from run to run.
_VARIES = [
    (re.compile(rf"(web-1|{re.escape(host_name())})/\d+"), "PROCESS"),
    (re.compile(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d|\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"redis://\S+?/0"), "REDIS"),
    (re.compile(r"\b[\d.,]+ (ms|s|min|h)\b"), "SECONDS"),
    (re.compile(r"\b[\d.]+ (B|KiB|MiB)\b"), "BYTES"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "DIGEST"),
    (re.compile(r"ttl=\d+"), "ttl=N"),
    (re.compile(r"\d+\.\d+(?= req/s| +\d+\.\d%)"), "RATE"),
    (re.compile(r"Valkey [\d.]+\d"), "VALKEY"),
    (re.compile(r"fastapi-cacheinval [\d.]+\d"), "RELEASE"),
    (re.compile(r"\s+"), " "),
]


def settled(text: str) -> list[str]:
    """The lines, without what differs from run to run, and in an order of their own: replicas are sorted by number."""
    # Wrapped lines are joined again: where they break depends on the numbers in them.
    lines = re.sub(r"\n +(?=(ends it|a?[0-9a-f]{15}\)))", " ", text.strip()).splitlines()
    found = []
    for line in lines:
        for pattern, replacement in _VARIES:
            line = pattern.sub(replacement, line)  # noqa: PLW2901 - one after the other
        found.append(line.strip())
    return sorted(found)


def command(line: str, url: str, directory: Path) -> str:
    """What a command of the page prints, on either stream."""
    words = line.removeprefix("$ cacheinval ").split()
    result = subprocess.run(
        [sys.executable, "-m", "fastapi_cacheinval.cli", *words],
        capture_output=True, text=True, check=False, cwd=directory,
        env={**BARE, "CACHEINVAL_URL": url},
    )  # fmt: skip
    return result.stdout + result.stderr


async def test_every_command_prints_what_the_page_shows(shop: str, redis_server: Valkey, tmp_path: Path) -> None:
    """In the order of the page, after three GETs of each replica, a PUT and one more GET."""
    async with (
        Replicas(shop, 2, redis_url=redis_server.url) as replicas,
        httpx.AsyncClient(headers={"Host": "shop.example"}, trust_env=False) as client,
    ):
        one, other = (f"{url}/products/42" for url in replicas.urls)
        await client.get(one)
        # The other takes it from Redis.
        await asyncio.to_thread(until, lambda: redis_server.client.keys("cacheinval:*:r"), "the response in Redis")
        for url in (one, one, other, other, other):
            await client.get(url)
        await client.put(one, json={"name": "Kettle", "brand": "acme", "price": 27})
        await client.get(one)
        # Each replica tells of all seven, and then that they rest.
        await asyncio.to_thread(
            until,
            lambda: re.search(r"(?s) 0\.0 req/s.* 7 +0 +0", command("top --once", redis_server.url, tmp_path)),
            "seven requests, and rest",
        )
        for block in SHOWN:
            line, _, shown = block.partition("\n")
            printed = await asyncio.to_thread(command, line, redis_server.url, tmp_path)
            assert settled(printed) == settled(shown), line


def test_the_page_names_every_command() -> None:
    """The table has each but the one for shells, and the page shows the output of most."""
    page = PAGE.read_text("utf-8")
    for name in cacheinval.commands:
        assert f"`cacheinval {name}" in page or f"cacheinval {name} " in page
    assert {block.split()[2] for block in SHOWN} == set(cacheinval.commands) - {"completion", "clear"}
