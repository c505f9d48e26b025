"""What the documentation says of replicas, done."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.testing import Replicas, assert_hit, assert_miss
from tests.helpers.documents import ROOT, blocks
from tests.servers import PATIENCE, Valkey, cluster, group

pytestmark = pytest.mark.anyio

SHOP = {"Host": "shop.example"}


def documented_rules() -> list[str]:
    """The words of the `ACL SETUSER` on the page, from the switch on."""
    page = ROOT / "docs/replicas.md"
    [block] = [block for block in blocks(None, language="text") if block.page == page and "ACL SETUSER" in block.text]
    words = block.text.split()
    assert words[:4] == ["ACL", "SETUSER", "shop", "on"]
    return words[3:]


async def test_the_first_example_works_on_replicas(shop: str, redis_server: Valkey) -> None:
    """The README's five lines, with another address in the URL: two processes are one cache."""
    async with (
        Replicas(shop, 2, redis_url=redis_server.url) as replicas,
        httpx.AsyncClient(headers=SHOP, trust_env=False) as client,
    ):
        one, other = (f"{url}/products/42" for url in replicas.urls)
        assert_miss(await client.get(one))
        assert_hit(await client.get(other))
        changed = await client.put(one, json={"name": "Kettle", "brand": "acme", "price": 27})
        assert changed.headers["cacheinval-purge"] == "done"
        now = await client.get(one)
        assert_miss(now)
        assert now.json()["price"] == 27


def documented_addition(what: str) -> list[str]:
    """The words that the page adds to them for a database or a cluster."""
    [words] = re.findall(rf"{what}(?: needs)? `(\+[^`]+)`", (ROOT / "docs/replicas.md").read_text("utf-8"))
    return words.split()


@pytest.mark.parametrize("options", ["0", "0?protocol=2", "0?protocol=3", "1"])
async def test_the_documented_acl_is_enough(redis_server: Valkey, tmp_path: Path, options: str) -> None:
    """A user with these rules fills, reads, purges, waits for all and leaves, and the server has refused it nothing."""
    more = documented_addition("A database other than 0") if options == "1" else []
    user = let_in([redis_server], more)
    await used(f"redis://{user}@127.0.0.1:{redis_server.port}/{options}", tmp_path)
    assert redis_server.execute("ACL", "LOG") == []


@pytest.mark.timeout(120)
async def test_the_documented_acl_is_enough_for_a_cluster(tmp_path: Path) -> None:
    """With what the page adds for it, no node refuses anything."""
    with cluster() as nodes:
        user = let_in(nodes.nodes, documented_addition("a cluster"))
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes.nodes)
        await used(f"redis+cluster://{user}@{hosts}", tmp_path)
        assert [node.execute("ACL", "LOG") for node in nodes.nodes] == [[], [], []]


async def test_the_documented_acl_is_enough_to_confirm() -> None:
    """With what the page adds for it, a replica takes a lease, and a purge of its own is confirmed."""
    with group(1) as servers:
        primary = servers.servers[0]
        user = let_in([primary], documented_addition("`confirm_replicas`"))
        url = f"redis://{user}@127.0.0.1:{primary.port}/0"
        cache = HTTPCache.from_url(url, namespace="prices", confirm_replicas=1)
        await cache.start()
        try:
            assert (await cache.invalidate("kettle", wait="all")).replicas == 1
        finally:
            await cache.stop()
        assert primary.execute("ACL", "LOG") == []


def let_in(servers: list[Valkey], more: list[str]) -> str:
    """Make the page's user on these servers; gives its name and password as they stand in a URL."""
    # Made for the namespace on the page; the example has another.
    rules = [word.replace("shop", "prices") for word in documented_rules()]
    (password,) = [word[1:] for word in rules if word.startswith(">")]
    for server in servers:
        server.execute("ACL", "SETUSER", "shop", "reset", *rules, *more)
        server.execute("ACL", "LOG", "RESET")
    return f"shop:{password}"


async def until(client: httpx.AsyncClient, method: str, url: str, field: str, begins: str) -> httpx.Response:
    """Ask until a field of the answer begins so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await client.request(method, url)
            if answer.headers.get(field, "").startswith(begins):
                return answer
            await asyncio.sleep(0.05)


async def used(url: str, tmp_path: Path) -> None:
    """Two replicas of the example do all that they can do."""
    (tmp_path / "42").write_text("30")
    async with (
        Replicas("prices:app", 2, redis_url=url) as replicas,
        httpx.AsyncClient(headers=SHOP, trust_env=False) as client,
    ):
        one, other = (f"{each}/prices/42" for each in replicas.urls)
        assert_miss(await client.get(one))
        # A machine that is busy may keep a call from its answer for longer than the cache waits.
        await until(client, "GET", other, "cache-status", "cacheinval; hit")
        changed = await until(client, "PUT", f"{other}?price=20", "cacheinval-purge", "done")
        token = {"Cacheinval-Token": changed.headers["cacheinval-token"]}
        assert (await client.get(one, headers=token)).json() == 20
        burst = await asyncio.gather(*(client.get(each, params={"burst": 1}) for each in (one, other) * 10))
        assert {answer.status_code for answer in burst} == {200}
        async with HTTPCache.from_url(url, namespace="prices") as publisher:
            assert (await publisher.invalidate("price:42", wait="all")).replicas == 2
        await replicas.stop(0)


async def test_a_server_that_is_silent_is_what_the_page_says(redis_server: Valkey, tmp_path: Path) -> None:
    """With Redis silent a replica answers all the same, and says that it is cut off."""
    (tmp_path / "42").write_text("30")
    async with (
        Replicas("prices:app", 1, redis_url=redis_server.url) as replicas,
        httpx.AsyncClient(headers=SHOP, trust_env=False) as client,
    ):
        (url,) = replicas.urls
        assert_miss(await client.get(f"{url}/prices/42"))
        redis_server.pause()
        seen: set[str] = set()
        while not any("disconnected" in each for each in seen):
            answer = await client.get(f"{url}/prices/42")
            assert answer.json() == 30
            seen.add(answer.headers["cache-status"])
            await asyncio.sleep(0.02)
        changed = await client.put(f"{url}/prices/42", params={"price": 20})
        assert changed.headers["cacheinval-purge"] == "queued"
        assert (await client.get(f"{url}/prices/42")).json() == 20
