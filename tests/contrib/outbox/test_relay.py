"""The relay on an SQLite file: purges in order, one at a time, and whatever is lost on the way comes again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import ConfigurationError, HTTPCache, Receipt, SourceState
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay, UnreadableRow
from fastapi_cacheinval.sources import DROP, KEEP, Change, Unread
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.fleet import PATIENT, eventually
from tests.helpers.outbox import Shop, relaying, replica
from tests.helpers.telemetry import Recorded, identity_of, linked_to
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

NEVER = 3600.0


class Heard:
    """A `then` that keeps receipts."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    async def __call__(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    @property
    def tags(self) -> list[tuple[str, ...]]:
        return [receipt.tags for receipt in self.receipts]


async def insert_raw(opened: Shop, values: str) -> None:
    """As a program does that knows nothing of the outbox's rules."""
    async with opened.engine.begin() as connection:
        await connection.execute(text(f"INSERT INTO cacheinval_outbox (tags, soft, everything) VALUES {values}"))


# -- all is well --------------------------------------------------------------------------------------


async def test_what_is_committed_is_purged_on_the_other_replica_and_deleted(opened: Shop) -> None:
    """From the write to the replica; the relay may have been woken, and says how it stands."""
    async with replica(opened) as reader, relaying(opened, poll=NEVER) as (relay,):
        assert await reader.serves() == await reader.serves() == 0
        await eventually(lambda: relay.state().connected, "the first look")
        applied = reader.cache.statistics().applied
        await opened.change(7)
        relay.wake()
        await eventually(lambda: reader.cache.statistics().applied > applied, "the purge on the replica")
        assert await reader.serves() == 7
        await eventually(lambda: relay.state().done == 1, "the deletion")
        assert relay.state() == SourceState(running=True, connected=True, received=1, done=1, lag=0)
        assert await opened.rows() == []


async def test_it_looks_by_itself_on_the_clock_of_the_cache(opened: Shop) -> None:
    """Nobody wakes it: `poll` seconds later it looks again, and not before."""
    clock, heard = FakeClock(), Heard()
    cache = HTTPCache(clock=clock)
    relay = OutboxRelay(cache, opened.engine, opened.outbox, poll=5, then=heard)
    cache.attach(relay)
    async with cache:
        await eventually(lambda: relay.state().connected and clock.waiting, "the first look")
        await opened.add("a")
        clock.tick(4.9)
        await asyncio.sleep(0)
        assert heard.tags == []
        clock.tick(0.2)
        await eventually(lambda: heard.tags == [("a",)], "the second look")
        await eventually(lambda: relay.state().done, "the deletion")
        assert cache.statistics().sources["outbox"] == relay.state()


async def test_neighbours_that_are_equally_soft_are_one_purge_and_the_order_is_kept(opened: Shop) -> None:
    """Over several batches, everything, soft and hard; `then` hears of each purge, in that order."""
    for tags, how in [
        (["a", "b"], {}),
        (["b", "c"], {}),
        (["d"], {"soft": True}),
        ([], {"everything": True}),
        (["e"], {}),
        (["f"], {}),
        (["g"], {}),
    ]:
        await opened.add(*tags, **how)
    heard = Heard()
    async with relaying(opened, batch=6, then=heard):
        await opened.empty()
    assert [(each.tags, each.soft, each.everything) for each in heard.receipts] == [
        (("a", "b", "c"), False, False),
        (("d",), True, False),
        ((), False, True),
        (("e", "f"), False, False),
        (("g",), False, False),
    ]


async def test_a_row_with_very_many_tags_is_purged_in_parts(opened: Shop) -> None:
    """Each small enough for Redis to be quick with; the row is deleted when all are done."""
    tags = [f"product:{number}" for number in range(2_500)]
    await opened.add(*tags)
    heard = Heard()
    async with relaying(opened, then=heard) as (relay,):
        await opened.empty()
        await eventually(lambda: relay.state().done == 1, "the deletion")
    assert [len(each) for each in heard.tags] == [1_000, 1_000, 500]
    assert [tag for each in heard.tags for tag in each] == tags


async def test_the_span_of_the_purge_links_to_the_trace_of_each_writer(opened: Shop) -> None:
    """Rows of two traces in one purge: two links; a row that was written under no trace adds none."""
    recorded = Recorded()
    tracer = recorded.tracer_provider.get_tracer("test")
    writers = []
    for tag in ("a", "b"):
        with tracer.start_as_current_span("write") as span:
            await opened.add(tag)
            writers.append(identity_of(span))  # type: ignore[arg-type]
    await opened.add("c")
    cache = HTTPCache.from_url(opened.redis, **PATIENT, **recorded.providers)
    async with cache, OutboxRelay(cache, opened.engine, opened.outbox):
        await opened.empty()
    assert linked_to(recorded.one("cacheinval.invalidate")) == writers


async def test_it_runs_alone_as_a_worker(opened: Shop) -> None:
    """`run()` starts the cache for itself, works until it is cancelled, and leaves nothing running."""
    cache = HTTPCache.from_url(opened.redis, **PATIENT)
    relay = OutboxRelay(cache, opened.engine, opened.outbox)
    await opened.add("a")
    worker = asyncio.create_task(relay.run())
    await opened.empty()
    worker.cancel()
    await asyncio.wait((worker,))
    assert worker.cancelled()
    assert not relay.state().running
    assert not cache.running
    relay.wake()


# -- several relays -----------------------------------------------------------------------------------


async def test_of_several_relays_one_works_at_a_time_and_each_row_is_done_once(opened: Shop) -> None:
    """Three over one file, batches of two: every row is purged once, in order, however they take turns."""
    for number in range(30):
        await opened.add(f"product:{number}")
    heard, at_work = Heard(), 0

    async def then(receipt: Receipt) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1
        await heard(receipt)
        await asyncio.sleep(0)
        at_work -= 1

    async with relaying(opened, 3, batch=2, poll=0.01, then=then) as relays:
        await opened.empty()
        await eventually(lambda: sum(relay.state().done for relay in relays) == 30, "the end of the last batch")
        assert sum(relay.state().received for relay in relays) == 30
        assert [relay.state().failures for relay in relays] == [0, 0, 0]
    assert [tag for tags in heard.tags for tag in tags] == [f"product:{number}" for number in range(30)]


async def test_writers_are_not_locked_out_while_the_relay_waits(opened: Shop, redis_server: Valkey) -> None:
    """With Redis away and rows in hand, the file takes writes at once, from a driver that does not wait for locks."""
    async with relaying(opened, hold=NEVER, poll=0.02) as (relay,):
        await eventually(lambda: relay.state().connected, "the first look")
        redis_server.kill()
        await opened.add("a")
        relay.wake()
        await eventually(lambda: relay.state().waiting == 1, "rows in hand")
        impatient = create_engine(opened.url.replace("+aiosqlite", ""), connect_args={"timeout": 0})
        with impatient.begin() as connection:
            opened.outbox.add(connection, "b")
        impatient.dispose()
        redis_server.start()
        await opened.empty()


async def test_past_the_hold_another_may_take_the_rows(opened: Shop) -> None:
    """A `then` that hangs keeps others out for `hold` seconds and no longer; the first is not interrupted by that."""
    may_go, held = asyncio.Event(), asyncio.Event()

    async def slow(receipt: Receipt) -> None:
        held.set()
        await may_go.wait()

    await opened.add("a")
    async with relaying(opened, hold=0.1, poll=0.02, then=slow) as (first,):
        await asyncio.wait_for(held.wait(), 20)
        async with relaying(opened, poll=0.02) as (second,):
            await eventually(lambda: second.state().done == 1, "the second")
        assert await opened.rows() == []
        await opened.add("b")
        await eventually(lambda: first.state().lag == 1, "a look of the first at what waits")
        may_go.set()
        await opened.empty()
        assert first.state().failures == 0


async def test_a_relay_that_is_stopped_leaves_no_lock(opened: Shop) -> None:
    """Stopped at whatever moment, with statements under way, it leaves a file that anybody may write to at once."""
    impatient = create_engine(opened.url.replace("+aiosqlite", ""), connect_args={"timeout": 0})
    for moment in range(60):
        await opened.add("a")
        async with relaying(opened, poll=0.001):
            await asyncio.sleep(moment / 3_000)
        with impatient.begin() as connection:
            opened.outbox.add(connection, "b")
    impatient.dispose()


# -- losses -------------------------------------------------------------------------------------------


async def test_while_redis_is_away_nothing_is_forgotten(opened: Shop, redis_server: Valkey) -> None:
    """Rows stay until their purge has its number, are counted meanwhile, and reach the replica afterwards."""
    async with replica(opened, staleness_bound=2.0, redis_timeout=0.5) as reader:
        async with relaying(opened, poll=0.02) as (relay,):
            await eventually(lambda: relay.state().connected, "the first look")
            redis_server.kill()
            await opened.change(1)
            await eventually(lambda: relay.state().received, "the row")
            await opened.change(2)
            assert len(await opened.rows()) == 2
            redis_server.start()
            await opened.empty()
            assert relay.state().failures == 0
        await eventually(lambda: reader.cache.statistics().lease_remaining > 0, "the replica")
        async with HTTPCache.from_url(opened.redis, **PATIENT) as publisher:
            await reader.up_to_date(publisher)
        assert await reader.serves() == 2


async def test_with_redis_away_from_the_start_no_rows_are_taken_and_the_lag_is_told(
    opened: Shop, redis_server: Valkey
) -> None:
    """There would be no use in it; they are taken when Redis is there."""
    await opened.add("a")
    await opened.add("b")
    redis_server.kill()
    cache = HTTPCache.from_url(opened.redis, redis_timeout=0.5)
    async with cache, OutboxRelay(cache, opened.engine, opened.outbox, poll=0.02) as relay:
        await eventually(lambda: relay.state().lag == 2, "the lag")
        assert relay.state().received == 0
        redis_server.start()
        await opened.empty()
        await eventually(lambda: relay.state().lag == 0, "no lag")


async def test_while_the_table_is_away_it_tries_again_and_says_so_once(
    opened: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """The trouble names the table and not the statement; it is over when the table is there."""
    async with opened.engine.begin() as connection:
        await connection.run_sync(opened.outbox.metadata.drop_all)
    async with relaying(opened, poll=0.02) as (relay,):
        await eventually(lambda: relay.state().failures >= 2, "failures")
        assert "no such table: cacheinval_outbox" in relay.state().trouble
        assert "SELECT" not in relay.state().trouble
        assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 1
        async with opened.engine.begin() as connection:
            await connection.run_sync(opened.outbox.metadata.create_all)
        await opened.add("a")
        await opened.empty()
        await eventually(lambda: not relay.state().trouble, "the end of the trouble")


async def test_what_then_raises_has_the_rows_purged_again_and_those_before_are_done(
    opened: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure at the second purge of a batch forgets the first and keeps the second, until it succeeds; said once."""
    await opened.add("a")
    await opened.add("b", soft=True)
    heard: list[tuple[str, ...]] = []

    async def then(receipt: Receipt) -> None:
        heard.append(receipt.tags)
        if receipt.soft and len(heard) < 4:
            raise RuntimeError("the CDN is away")

    async with relaying(opened, poll=0.02, then=then) as (relay,):
        await opened.empty()
        await eventually(lambda: relay.state().done == 2, "the deletion")
        assert relay.state().failures == 2
    assert heard == [("a",), ("b",), ("b",), ("b",)]
    assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 1


# -- what cannot be read ------------------------------------------------------------------------------

POISON = ["('product:1', 0, 0)", "(CAST(x'ff' AS TEXT), 0, 0)", "('[\"a\"]', 'maybe', 0)", "('[1]', 0, 0)"]


@pytest.mark.parametrize("values", POISON)
async def test_a_row_that_cannot_be_read_is_set_aside(
    opened: Shop, caplog: pytest.LogCaptureFixture, values: str
) -> None:
    """It is reported without what it holds, counted and kept, marked; the rows around it are purged."""
    await opened.add("before")
    await insert_raw(opened, values)
    await opened.add("after")
    heard = Heard()
    async with relaying(opened, poll=0.02, then=heard) as (relay,):
        await eventually(lambda: relay.state().refused == 1, "the refusal")
        await opened.add("later")
        await opened.empty()
        await eventually(lambda: relay.state().done == 3, "the others")
        assert (relay.state().failures, relay.state().lag) == (0, 0)
    assert heard.tags == [("before", "after"), ("later",)]
    [told] = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "row 2 cannot be read" in told
    assert "product:1" not in told
    async with opened.engine.connect() as connection:
        kept = await connection.execute(text("SELECT id FROM cacheinval_outbox WHERE refused = 1"))
        assert kept.scalars().all() == [2]


async def test_a_handler_says_what_becomes_of_each_row(opened: Shop) -> None:
    """A row that is dropped is gone, as is one that a change is purged for; one that is kept is set aside."""
    given: list[tuple[UnreadableRow, Exception]] = []
    answers: dict[int, Change | Unread] = {1: DROP, 2: KEEP, 3: Change(("products",))}

    async def on_unreadable(row: UnreadableRow, error: Exception) -> Change | Unread:
        given.append((row, error))
        return answers[row.id]

    for text_of in ("one", "two", "three"):
        await insert_raw(opened, f"('{text_of}', 0, 0)")
    heard = Heard()
    async with relaying(opened, on_unreadable=on_unreadable, then=heard) as (relay,):
        await eventually(lambda: relay.state().refused == 3, "the refusals")
        assert relay.state().failures == 0
    assert [(row.id, row.tags, str(error)) for row, error in given] == [
        (number, tags, "its column tags is no JSON list") for number, tags in ((1, b"one"), (2, b"two"), (3, b"three"))
    ]
    assert [(row.id, row.refused) for row in await opened.rows()] == [(2, True)]
    assert heard.tags == [("products",)]


@pytest.mark.parametrize("mistake", ["raises", "answers", "then"])
async def test_a_handler_that_fails_loses_nothing_and_holds_nothing_up(opened: Shop, mistake: str) -> None:
    """The row stays as it is and is asked about again, later each time; rows around it are purged meanwhile."""
    asked: list[int] = []
    times: list[float] = []

    async def on_unreadable(row: UnreadableRow, error: Exception) -> Any:
        asked.append(row.id)
        times.append(clock.now())
        if mistake == "then":
            return Change(("wide",))
        if row.id == 1 and len(asked) < 4:
            if mistake == "raises":
                raise ConnectionError("the archive is away")
            return True
        return DROP

    async def then(receipt: Receipt) -> None:
        if receipt.tags == ("wide",) and len(asked) < 4:
            raise ConnectionError("the CDN is away")

    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    relay = OutboxRelay(cache, opened.engine, opened.outbox, poll=NEVER, on_unreadable=on_unreadable, then=then)
    cache.attach(relay)
    await insert_raw(opened, "('one', 0, 0)")
    async with cache:
        await eventually(lambda: relay.state().failures == 1 and clock.waiting, "the first failure")
        assert relay.state().trouble
        await opened.add("after")
        relay.wake()
        await eventually(lambda: relay.state().done == 1, "the row behind it")
        assert (asked, relay.state().refused) == ([1], 0)
        assert [(row.id, row.refused) for row in await opened.rows()] == [(1, False)]
        while not relay.state().refused:
            await eventually(lambda: clock.waiting, "the pause")
            clock.tick(0.05)
            await asyncio.sleep(0)
        await eventually(lambda: not relay.state().trouble, "the end of the trouble")
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert asked == [1, 1, 1, 1]
    assert await opened.rows() == []


@pytest.mark.filterwarnings("ignore:on_poison is on_unreadable now")
async def test_the_old_name_of_the_handler_works(opened: Shop) -> None:
    """`on_poison` of 0.1 is awaited with the row alone, which is deleted then."""
    given: list[UnreadableRow] = []

    async def on_poison(row: UnreadableRow) -> None:
        given.append(row)

    await insert_raw(opened, "('one', 0, 0)")
    async with relaying(opened, on_poison=on_poison) as (relay,):
        await eventually(lambda: relay.state().refused == 1, "the refusal")
    assert [row.tags for row in given] == [b"one"]
    assert await opened.rows() == []


async def test_the_old_name_of_the_handler_says_so(opened: Shop) -> None:
    """It warns where it is given."""
    with pytest.warns(DeprecationWarning, match="on_poison is on_unreadable now"):
        OutboxRelay(HTTPCache(), opened.engine, opened.outbox, on_poison=print)


# -- configuration ------------------------------------------------------------------------------------


async def test_what_cannot_work_is_refused_when_it_is_made(opened: Shop) -> None:
    """With what would work."""
    cache, outbox, engine = HTTPCache(), opened.outbox, opened.engine
    memory = create_async_engine("sqlite+aiosqlite://")
    sync = create_engine("sqlite:///nowhere.db")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ((cache, sync, outbox), {}, "takes an AsyncEngine"),
        ((cache, engine, "cacheinval_outbox"), {}, "takes the Outbox"),
        (("cache", engine, outbox), {}, "takes the HTTPCache"),
        ((cache, memory, outbox), {}, "in a file"),
        ((cache, engine, outbox), {"poll": 0}, "poll and hold"),
        ((cache, engine, outbox), {"hold": -1}, "poll and hold"),
        ((cache, engine, outbox), {"poll": float("nan")}, "poll and hold"),
        ((cache, engine, outbox), {"batch": 0}, "batch"),
    ]
    for arguments, options, told in wrong:
        with pytest.raises(ConfigurationError, match=told):
            OutboxRelay(*arguments, **options)
    await memory.dispose()


async def test_a_database_that_is_in_memory_after_all_is_told(opened: Shop) -> None:
    """A URI can hide it: the relay says it when it looks."""
    engine = create_async_engine(
        "sqlite+aiosqlite:///file:shared?mode=memory&cache=shared&uri=true", poolclass=StaticPool
    )
    async with HTTPCache() as cache, OutboxRelay(cache, engine, Outbox()) as relay:
        await eventually(lambda: relay.state().trouble, "the trouble")
        assert "in a file" in relay.state().trouble
    await engine.dispose()


def test_the_sqlite_here_has_what_the_triggers_need(tmp_path: Path) -> None:
    """`json_array`, which is part of SQLite since 3.38 and of most builds before."""
    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("SELECT json_array('a', NULL)").fetchone() == ('["a",null]',)
    connection.close()
