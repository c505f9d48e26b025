"""A cache in memory in a process that is forked while it runs: what is kept is the parent's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.orm import sessionmaker
from starlette.testclient import TestClient

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered
from fastapi_cacheinval.contrib.sqlalchemy import CommittedNotPurged, collect_changes
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.contrib.sqlalchemy.store import TAGS, Label, make_engine
from tests.helpers.forks import in_child, in_thread
from tests.helpers.life import client_of, counting_app

pytestmark = pytest.mark.anyio


def _refused(cache: HTTPCache) -> None:
    for purge in (
        lambda: asyncio.run(cache.invalidate("t")),
        lambda: asyncio.run(cache.clear()),
        lambda: cache.invalidate_sync("t"),
        lambda: asyncio.run(cache.invalidate_url("/it")),
    ):
        with pytest.raises(PurgeNotDelivered, match="Without Redis no other process hears of it") as refused:
            purge()
        assert not refused.value.queued


async def test_a_fork_of_a_running_cache_in_memory_says_that_its_purges_reach_nobody() -> None:
    """What it keeps is its own from its own start on; the parent goes on."""
    cache = HTTPCache()
    app, counted = counting_app(cache)

    def work() -> None:
        _refused(cache)
        with TestClient(app) as client:
            client.get("/it")
            assert_hit(client.get("/it"))
            client.put("/it")
            assert_miss(client.get("/it"))

    async with client_of(app) as client:
        await client.get("/it")
        in_child(lambda: in_thread(work))
        assert_hit(await client.get("/it"))
        assert (await cache.invalidate_url("/it")).seq
        assert_miss(await client.get("/it"))
    assert counted.calls == 2


def test_a_commit_in_a_fork_says_that_its_purge_reaches_nobody(tmp_path: Path) -> None:
    """A worker of a `ProcessPoolExecutor` commits: the pages are its parent's."""
    cache, engine = HTTPCache(), make_engine(tmp_path)
    sessions = sessionmaker(engine)
    collect_changes(sessions, cache, TAGS)

    def work() -> None:
        engine.dispose(close=False)
        with sessions() as session:
            session.add(Label(id=1))
            with pytest.raises(CommittedNotPurged, match="Without Redis no other process hears of it") as refused:
                session.commit()
        assert refused.value.tags == ("label:1",)

    async def life() -> None:
        async with cache:
            in_child(lambda: in_thread(work))

    asyncio.run(life())
    with sessions() as session:
        assert session.get(Label, 1)
    engine.dispose()
