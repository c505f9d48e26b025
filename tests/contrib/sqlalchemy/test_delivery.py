"""Outside of requests, and where the log is out of reach."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered
from fastapi_cacheinval.contrib.sqlalchemy import CommitRefused, CommittedNotPurged
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import Label, Store, tags_of
from tests.helpers.mutations import settle
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio


def away(**options: Any) -> HTTPCache:
    """A cache whose log nobody serves."""
    return HTTPCache.from_url(f"redis://127.0.0.1:{free_port()}", redis_timeout=0.2, **options)


def write(store: Store, number: int = 11) -> None:
    """A transaction of its own, from plain code."""
    with store.sessions.begin() as session:
        session.add(Label(id=number))


def is_there(store: Store, number: int = 11) -> bool:
    with store.sessions() as session:
        return session.get(Label, number) is not None


def test_a_script_purges_without_a_loop(store: Store) -> None:
    """`commit()` returns when the purge is made."""
    with capture_invalidations(store.cache) as receipts:
        write(store)
        assert tags_of(receipts) == [{"label:11"}]


async def test_a_thread_waits_for_the_cache_of_a_loop(store: Store) -> None:
    """A worker thread beside an app: the loop makes the purge, the thread waits for it."""
    async with store.cache:
        with capture_invalidations(store.cache) as receipts:
            await asyncio.to_thread(write, store)
            assert tags_of(receipts) == [{"label:11"}]


async def test_plain_code_on_the_loop_does_not_wait(store: Store) -> None:
    """It cannot: the purge is fenced at once, and made by a task."""
    async with store.cache:
        with capture_invalidations(store.cache) as receipts:
            write(store)
            assert store.cache._core.engine.replica.fenced(("label:11",))
            await settle()
    assert tags_of(receipts) == [{"label:11"}]
    assert not store.cache._core.engine.replica.fenced(("label:11",))


async def test_plain_code_on_a_loop_without_the_cache_waits(store: Store) -> None:
    """Nobody would look after a task: a thread makes the purge, and the block is short."""
    with capture_invalidations(store.cache) as receipts:
        write(store)
        assert tags_of(receipts) == [{"label:11"}]


async def test_a_purge_that_is_queued_is_logged_and_the_commit_stands(
    make_store: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    """The log is out of reach: nothing is raised, the purge waits in the queue, and is counted."""
    store = make_store(cache=away())
    async with store.cache:
        with caplog.at_level(logging.WARNING, "fastapi_cacheinval.contrib"):
            await asyncio.to_thread(write, store)
        statistics = store.cache.statistics()
        assert (statistics.queue_length, statistics.purges) == (1, {"queued": 1})
        assert [record.message for record in caplog.records if "contrib" in record.name] == [
            "a purge of 1 tag(s) after a commit is queued: the log is out of reach"
        ]
        assert is_there(store)
        with caplog.at_level(logging.WARNING, "fastapi_cacheinval.cache"):
            write(store, 12)
            await settle()
        assert store.cache.statistics().queue_length == 2
        assert "is queued" in caplog.text
    assert "label" not in caplog.text


def test_a_purge_that_is_nowhere_is_raised_and_says_that_the_commit_stands(make_store: Callable[..., Store]) -> None:
    """A script whose cache is not started queues nothing."""
    store = make_store(cache=away())
    with pytest.raises(CommittedNotPurged, match=r"^The transaction is committed, .*purge the error's tags") as raised:
        write(store)
    assert isinstance(raised.value, PurgeNotDelivered)
    assert (raised.value.tags, raised.value.queued) == (("label:11",), False)
    assert is_there(store)


def test_with_an_outbox_a_purge_that_is_nowhere_is_the_outboxs(
    make_store: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    """The row is the safety net: said, and not raised."""

    class Kept:
        def add(self, *_: object) -> None:
            return

    store = make_store(cache=away(), outbox=Kept())
    write(store)
    assert "is left to the outbox" in caplog.text


@pytest.mark.parametrize("started", [True, False])
async def test_where_mutations_are_refused_nothing_is_committed(
    make_store: Callable[..., Store], *, started: bool
) -> None:
    """`mutations_when_disconnected="refuse"`: the error comes before the commit, never after it."""
    store = make_store(cache=away(mutations_when_disconnected="refuse"))
    if started:
        await store.cache.start()
    with pytest.raises(CommitRefused, match=r"^The transaction is not committed") as raised:
        await asyncio.to_thread(write, store)
    assert raised.value.tags == ("label:11",)
    assert not is_there(store)
    assert store.cache.statistics().queue_length == 0
    # What changes nothing is not refused.
    with store.sessions.begin() as session:
        session.get(Label, 1)
    await store.cache.stop()


def test_where_mutations_are_refused_and_the_log_is_there_they_are_not(make_store: Callable[..., Store]) -> None:
    """The log of one process is never out of reach, started or not."""
    store = make_store(cache=HTTPCache(mutations_when_disconnected="refuse"))
    with store.purged() as tags:
        write(store)
    assert tags == {"label:11"}
