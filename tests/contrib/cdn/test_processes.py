"""Replicas as processes, one of which is stopped in its tracks, and a CDN that is refilled from it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fastapi_cacheinval.testing import Replicas
from tests.contrib.cdn.fakes import TOKEN, FakeFastly, serving
from tests.contrib.cdn.purging import confirmed
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


@dataclass
class Shop:
    """A CDN, and two replicas that purge it."""

    cdn: FakeFastly
    replicas: Replicas
    client: httpx.AsyncClient

    async def price(self, replica: int, product: int = 1) -> str:
        """What a replica says."""
        answer = await self.client.get(f"{self.replicas.urls[replica]}/prices/{product}")
        assert answer.status_code == 200
        return str(answer.json())

    async def change(self, replica: int, price: str, product: int = 1) -> None:
        """Change it, on a replica."""
        url = f"{self.replicas.urls[replica]}/prices/{product}"
        assert (await self.client.put(url, params={"price": price})).status_code == 200


@asynccontextmanager
async def shop(directory: Path) -> AsyncIterator[Shop]:
    prices = directory / "prices"
    prices.write_text("30", encoding="utf-8")
    with serving(FakeFastly()) as cdn:
        environment = {"CDN_URL": cdn.url, "TOKEN": TOKEN, "SERVICE": cdn.service, "PRICES": str(prices)}
        async with (
            Replicas("tests.contrib.cdn.served:app", 2, environment=environment) as replicas,
            httpx.AsyncClient() as client,
        ):
            yield Shop(cdn, replicas, client)


async def test_a_paused_replica_that_wakes_up_leaves_nothing_old_in_the_cdn(tmp_path: Path) -> None:
    """It is waited for until its lease is over; what it may give as its own young fill then, the second purge takes."""
    async with shop(tmp_path) as it:
        for replica in (0, 0, 1, 1):
            assert await it.price(replica) == "30"
        await it.replicas.pause(1)
        began = time.monotonic()
        await it.change(0, "20")
        await confirmed(it.cdn, 1)
        # Renewed each third of two seconds, the lease had two thirds left; a busy machine takes some of it.
        assert time.monotonic() - began >= 0.8
        assert "price:1" in it.cdn.keys
        await it.replicas.resume(1)
        await eventually(lambda: it.cdn.keys.count("price:1") == 2, "the second purge")
        assert await it.price(1) == "20"


async def test_a_replica_that_is_asked_to_end_tells_the_cdn_before_it_does(tmp_path: Path) -> None:
    """SIGTERM right after a purge, at a CDN that fails at first: it has the purge when the process has ended."""
    async with shop(tmp_path) as it:
        assert await it.price(0) == "30"
        it.cdn.faults.append("503")
        await it.change(0, "20")
        await it.replicas.stop(0)
        assert "price:1" in it.cdn.keys


async def test_a_purge_goes_out_from_one_replica(tmp_path: Path) -> None:
    """Each tells of its own purges only: once, and once again."""
    async with shop(tmp_path) as it:
        await it.change(0, "20", product=1)
        await it.change(1, "20", product=2)
        await eventually(lambda: it.cdn.keys.count("price:1") + it.cdn.keys.count("price:2") >= 4, "both, twice")
        assert (it.cdn.keys.count("price:1"), it.cdn.keys.count("price:2")) == (2, 2)
