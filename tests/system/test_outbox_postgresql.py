"""The outbox on PostgreSQL: locks, notifications, triggers, and a process that dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import MetaData, Table, insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.outbox import Outbox, UnreadableRow
from fastapi_cacheinval.sources import DROP, Unread
from tests.helpers.fleet import PATIENT, eventually
from tests.helpers.outbox import PRODUCT, Shop, death_at_every_step, relaying, replica, shop
from tests.servers import Valkey, until, valkey
from tests.system.postgresql import PostgreSQL, postgresql

pytestmark = pytest.mark.anyio

EACH_DRIVER = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
# Where only a notification can be what wakes a relay.
NEVER = 3600.0


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """One cluster for all tests here."""
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[Valkey]:
    """One Redis for all tests here."""
    with valkey() as server:
        yield server


@pytest.fixture
def driver() -> str:
    """What the shop's engine works with; a test may name another."""
    return "asyncpg"


@pytest.fixture
async def opened(database: PostgreSQL, shared_redis: Valkey, driver: str) -> AsyncIterator[Shop]:
    """A shop in a database of its own, with nothing in Redis."""
    shared_redis.clear()
    async with shop(database.url(database.database(), driver), shared_redis.url) as made:
        yield made


def name_of(opened: Shop) -> str:
    return opened.url.rpartition("/")[2]


@asynccontextmanager
async def purges_of(opened: Shop) -> AsyncIterator[list[Receipt]]:
    """What one relay purges meanwhile, woken by notifications alone."""
    heard: list[Receipt] = []

    async def then(receipt: Receipt) -> None:
        heard.append(receipt)

    async with relaying(opened, poll=NEVER, then=then) as (relay,):
        await eventually(lambda: relay.state().connected, "a relay that listens")
        yield heard


# -- from the write to the other replica -------------------------------------------------------------


@EACH_DRIVER
async def test_a_committed_write_is_on_the_other_replica_without_a_poll(opened: Shop) -> None:
    """The notification of the commit wakes the relay, whose next look by the clock is an hour away."""
    async with replica(opened) as reader, relaying(opened, poll=NEVER) as (relay,):
        assert await reader.serves() == await reader.serves() == 0
        await eventually(lambda: relay.state().connected, "a relay that listens")
        applied = reader.cache.statistics().applied
        await opened.change(7)
        await eventually(lambda: reader.cache.statistics().applied > applied, "the purge on the replica")
        assert await reader.serves() == 7
        await eventually(lambda: relay.state().done == 1, "the deletion")
        assert await opened.rows() == []


@EACH_DRIVER
async def test_what_is_rolled_back_is_not_purged_and_wakes_nobody(opened: Shop) -> None:
    """A row is of its transaction, of a savepoint too; what comes after it is purged alone."""
    async with purges_of(opened) as heard:
        async with AsyncSession(opened.engine) as session:
            await opened.outbox.add_async(session, "rolled back")
            await session.rollback()
            await opened.outbox.add_async(session, "kept")
            async with session.begin_nested() as savepoint:
                await opened.outbox.add_async(session, "undone")
                await savepoint.rollback()
            await session.commit()
        await eventually(lambda: heard, "the purge")
        await opened.empty()
    assert [receipt.tags for receipt in heard] == [("kept",)]


@EACH_DRIVER
@pytest.mark.parametrize("table", ['Ou"t böx', "o" * 60])
async def test_a_table_of_any_name_in_a_schema_wakes_its_relay(opened: Shop, database: PostgreSQL, table: str) -> None:
    """Quotes, spaces and capitals in the name of the channel, and one too long for PostgreSQL; on an autocommit engine."""
    database.psql('CREATE SCHEMA "S 1"', name_of(opened))
    opened.outbox = Outbox(table, "S 1")
    async with opened.engine.begin() as connection:
        await connection.run_sync(opened.outbox.metadata.create_all)
    database.psql(str(opened.outbox.triggers(PRODUCT, tags=["product:{id}"], dialect="postgresql")), name_of(opened))
    opened.engine = opened.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with purges_of(opened) as heard:
        await opened.add("by add")
        await eventually(lambda: len(heard) == 1, "the purge of the row")
        await opened.empty()
        database.psql("UPDATE product SET price = 5", name_of(opened))
        await eventually(lambda: len(heard) == 2, "the purge of the trigger's row")
    assert [receipt.tags for receipt in heard] == [("by%20add",), ("product:1",)]


# -- two relays ---------------------------------------------------------------------------------------


@EACH_DRIVER
async def test_of_two_relays_each_does_its_own_rows(opened: Shop) -> None:
    """With two side by side and nobody dying, each row is purged once, by one of them, and both have worked."""
    tags = [f"product:{number}" for number in range(60)]
    heard: list[str] = []

    async def then(receipt: Receipt) -> None:
        heard.extend(receipt.tags)
        # The other has time to take rows as well.
        await eventually(lambda: all(relay.state().received for relay in relays), "work for both")

    for tag in tags:
        await opened.add(tag)
    async with relaying(opened, 2, batch=4, poll=0.02, then=then) as relays:
        await opened.empty()
        await eventually(lambda: sum(relay.state().done for relay in relays) == 60, "the end of the last batch")
        assert [relay.state().received for relay in relays] == [relay.state().done for relay in relays]
    assert sorted(heard) == sorted(tags)


async def test_one_relay_keeps_the_order(opened: Shop) -> None:
    """Soft and hard purges come in the order in which they were written, over several batches."""
    order = [(f"tag:{number}", number % 3 == 0) for number in range(20)]
    for tag, soft in order:
        await opened.add(tag, soft=soft)
    heard: list[tuple[str, bool]] = []

    async def then(receipt: Receipt) -> None:
        heard.extend((tag, receipt.soft) for tag in receipt.tags)

    async with relaying(opened, batch=7, then=then):
        await opened.empty()
    assert heard == order


async def test_the_rows_of_a_relay_that_is_killed_are_free_at_once(opened: Shop, database: PostgreSQL) -> None:
    """While it holds them another sees none; when its connection dies the other takes over, however long it would hold."""
    await opened.add("product:1")
    stuck, free = asyncio.Event(), list[Receipt]()

    async def never(receipt: Receipt) -> None:
        stuck.set()
        await asyncio.Event().wait()

    async def then(receipt: Receipt) -> None:
        free.append(receipt)

    async with relaying(opened, hold=NEVER, then=never):
        await asyncio.wait_for(stuck.wait(), 20)
        holder = database.psql(
            "SELECT pid FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
            "WHERE relname = 'cacheinval_outbox' AND mode = 'RowShareLock'",
            name_of(opened),
        )
        async with relaying(opened, poll=0.02, then=then) as (other,):
            await eventually(lambda: other.state().lag == 1, "a look of the other")
            assert other.state().received == 0
            database.psql(f"SELECT pg_terminate_backend({holder})")
            await eventually(lambda: free, "the purge by the other")
            await opened.empty()


async def test_rows_are_not_held_for_longer_than_is_said(opened: Shop) -> None:
    """Past `hold` the transaction ends and others may take the rows, and the first still sees them through."""
    await opened.add("product:1")
    may_go, held = asyncio.Event(), asyncio.Event()

    async def slow(receipt: Receipt) -> None:
        held.set()
        await may_go.wait()

    async with relaying(opened, hold=0.1, poll=0.02, then=slow) as (first,):
        await asyncio.wait_for(held.wait(), 20)
        async with relaying(opened, poll=0.02):
            await opened.empty()
        may_go.set()
        await eventually(lambda: first.state().done == 1, "the end of the first")
        assert first.state().failures == 0


async def test_rows_that_are_committed_out_of_order_are_not_lost(opened: Shop) -> None:
    """A row whose number is lower than one that has been relayed already is relayed when it is committed."""
    async with purges_of(opened) as heard, opened.engine.connect() as slow:
        await opened.outbox.add_async(slow, "first-written")
        await opened.add("first-committed")
        await eventually(lambda: len(heard) == 1, "the purge of the second")
        await opened.empty()
        await slow.commit()
        await eventually(lambda: len(heard) == 2, "the purge of the first")
        await opened.empty()
    assert [receipt.tags for receipt in heard] == [("first-committed",), ("first-written",)]


# -- losses -------------------------------------------------------------------------------------------


async def test_redis_and_then_the_database_are_lost_and_no_purge_is(
    opened: Shop, database: PostgreSQL, shared_redis: Valkey
) -> None:
    """Committed while Redis is away, and the database gone before that is back: purged when both are there."""
    async with (
        replica(opened, staleness_bound=2.0, redis_timeout=0.5) as reader,
        relaying(opened, poll=0.02) as (relay,),
    ):
        assert await reader.serves() == 0
        shared_redis.kill()
        await opened.change(1)
        await eventually(lambda: relay.state().received == 1, "the relay that has taken the row")
        database.stop()
        shared_redis.start()
        database.start()
        await opened.empty()
        await eventually(lambda: reader.cache.statistics().lease_remaining > 0, "the replica")
        async with HTTPCache.from_url(opened.redis, **PATIENT) as publisher:
            await reader.up_to_date(publisher)
        assert await reader.serves() == 1
        await eventually(lambda: not relay.state().trouble, "the relay that is well")


@EACH_DRIVER
async def test_the_database_and_then_redis_are_lost_and_no_purge_is(
    opened: Shop, database: PostgreSQL, shared_redis: Valkey
) -> None:
    """The database is back first, and what is committed then waits for Redis, with its number in `lag`."""
    async with (
        replica(opened, staleness_bound=2.0, redis_timeout=0.5) as reader,
        relaying(opened, poll=0.02) as (relay,),
    ):
        assert await reader.serves() == 0
        await eventually(lambda: relay.state().connected, "the relay")
        database.stop()
        await eventually(lambda: relay.state().failures, "the relay that notices")
        assert not relay.state().connected
        assert "INSERT" not in relay.state().trouble
        shared_redis.kill()
        database.start()
        await opened.change(1)
        await eventually(lambda: relay.state().lag == 1, "the relay that sees the row")
        shared_redis.start()
        await opened.empty()
        await eventually(lambda: reader.cache.statistics().lease_remaining > 0, "the replica")
        async with HTTPCache.from_url(opened.redis, **PATIENT) as publisher:
            await reader.up_to_date(publisher)
        assert await reader.serves() == 1


@EACH_DRIVER
async def test_a_lost_connection_of_the_listener_is_made_anew(opened: Shop, database: PostgreSQL) -> None:
    """Killed by the server, it listens again; a commit after that wakes the relay without a poll."""
    async with purges_of(opened) as heard:
        name = name_of(opened)
        listeners = f"SELECT query FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'LISTEN%'"
        assert database.psql(listeners.replace("query", "pg_terminate_backend(pid)", 1), name) == "t"

        await asyncio.to_thread(until, lambda: "LISTEN" in database.psql(listeners, name), "a new LISTEN")
        await opened.add("after it")
        await eventually(lambda: heard, "the purge")


# -- what cannot be read ------------------------------------------------------------------------------


async def test_a_row_that_cannot_be_read_is_handed_over_and_passed(opened: Shop, database: PostgreSQL) -> None:
    """It goes to the handler and is deleted; the rows around it are purged."""
    poison: list[UnreadableRow] = []

    async def on_unreadable(row: UnreadableRow, error: Exception) -> Unread:
        poison.append(row)
        return DROP

    await opened.add("before")
    database.psql("INSERT INTO cacheinval_outbox (tags) VALUES ('product:1')", name_of(opened))
    await opened.add("after")
    async with relaying(opened, on_unreadable=on_unreadable) as (relay,):
        await eventually(lambda: relay.state().refused == 1, "the refusal")
        await eventually(lambda: relay.state().done == 2, "the others")
    assert [row.tags for row in poison] == ["product:1"]
    assert await opened.rows() == []


# -- triggers -----------------------------------------------------------------------------------------


def installed(opened: Shop, database: PostgreSQL, **how: Any) -> str:
    """Run the triggers' script in a psql session; gives the database's name."""
    made = opened.outbox.triggers(
        PRODUCT, dialect="postgresql", **{"tags": ["product:{id}", "brand:{brand}", "products"], **how}
    )
    database.psql(str(made), name_of(opened))
    return name_of(opened)


async def test_what_a_psql_session_changes_is_on_the_replica(opened: Shop, database: PostgreSQL) -> None:
    """The real psql, which knows nothing of the cache: the price that it writes is served next, without a poll."""
    name = installed(opened, database)
    async with replica(opened) as reader, relaying(opened, poll=NEVER) as (relay,):
        assert await reader.serves() == await reader.serves() == 0
        await eventually(lambda: relay.state().connected, "a relay that listens")
        applied = reader.cache.statistics().applied
        database.psql("UPDATE product SET price = 42 WHERE id = 1", name)
        await eventually(lambda: reader.cache.statistics().applied > applied, "the purge on the replica")
        assert await reader.serves() == 42


async def test_each_operation_purges_the_row_as_it_was_and_as_it_is(opened: Shop, database: PostgreSQL) -> None:
    """Insert, update, delete, TRUNCATE and COPY in one psql session; NULL leaves its tag out, the rest is as written."""
    name = installed(opened, database)
    async with purges_of(opened) as heard:
        steps = {
            "INSERT INTO product VALUES (2, 1, 'Ö & co')": {"product:2", "brand:%C3%96%20&%20co", "products"},
            "UPDATE product SET id = 3, brand = 'b''x' WHERE id = 2": {
                "product:2", "product:3", "brand:%C3%96%20&%20co", "brand:b'x", "products",
            },
            "UPDATE product SET brand = NULL WHERE id = 3": {"product:3", "brand:b'x", "products"},
            "DELETE FROM product WHERE id = 3": {"product:3", "products"},
            "COPY product FROM STDIN;\n4\t5\tz\n\\.\n": {"product:4", "brand:z", "products"},
        }  # fmt: skip
        for statement, tags in steps.items():
            heard.clear()
            database.psql(statement, name)
            await eventually(lambda: heard, statement)
            assert [set(receipt.tags) for receipt in heard] == [tags], statement
        heard.clear()
        database.psql("TRUNCATE product", name)
        await eventually(lambda: heard, "the purge of the TRUNCATE")
        assert [receipt.everything for receipt in heard] == [True]


async def test_a_truncate_purges_the_wide_tags_that_are_named(opened: Shop, database: PostgreSQL) -> None:
    """Where the author names them they are purged instead of everything."""
    name = installed(opened, database, truncate=["products", "a:b"])
    async with purges_of(opened) as heard:
        database.psql("TRUNCATE product", name)
        await eventually(lambda: heard, "the purge")
    assert [(receipt.tags, receipt.everything) for receipt in heard] == [(("products", "a:b"), False)]


async def test_who_may_write_to_the_table_needs_no_right_to_the_outbox(opened: Shop, database: PostgreSQL) -> None:
    """A user who may update the table alone is not refused; its own table of the outbox's name does not catch the row."""
    name = installed(opened, database)
    user = f"clerk_{name}"
    database.psql(f"CREATE ROLE {user} LOGIN; GRANT SELECT, UPDATE ON product TO {user}", name)
    async with purges_of(opened) as heard:
        database.psql(
            "CREATE TEMP TABLE cacheinval_outbox (tags text, soft boolean, everything boolean);"
            "UPDATE product SET price = 3",
            name,
            user,
        )
        await eventually(lambda: heard, "the purge")


async def test_hostile_names_and_values_stay_what_they_are(opened: Shop, database: PostgreSQL) -> None:
    """Quotes, dollars, backslashes and braces in names, templates and values end up in the tag, and nowhere else."""
    name = name_of(opened)
    hostile = Table("""ta"ble'; DROP TABLE product; --""", MetaData())
    column = """co"l$cacheinval$'; --"""
    database.psql('CREATE TABLE "ta""ble\'; DROP TABLE product; --" ("co""l$cacheinval$\'; --" text)', name)
    template = "{{x\\';DROP:TABLE:product;--$cacheinval1$}}:{" + column + "}"
    made = opened.outbox.triggers(hostile.name, tags=[template], dialect="postgresql")
    database.psql(str(made), name)
    async with purges_of(opened) as heard:
        database.psql('INSERT INTO "ta""ble\'; DROP TABLE product; --" VALUES (\'"]\\u0000;--\')', name)
        await eventually(lambda: heard, "the purge")
    assert [receipt.tags for receipt in heard] == [("{x\\';DROP:TABLE:product;--$cacheinval1$}:\"]\\u0000;--",)]
    assert database.psql("SELECT count(*) FROM product", name) == "1"


@EACH_DRIVER
async def test_the_statements_run_one_by_one_as_a_migration_runs_them(opened: Shop, database: PostgreSQL) -> None:
    """Through SQLAlchemy's `text`, as Alembic does, twice; and the droppers leave nothing behind."""
    made = opened.outbox.triggers(PRODUCT, tags=["a:b:{id}", "x:y"], dialect="postgresql")
    for _ in range(2):
        async with opened.engine.begin() as connection:
            for statement in made.create:
                await connection.execute(text(statement))
    async with purges_of(opened) as heard:
        async with opened.engine.begin() as connection:
            await connection.execute(insert(PRODUCT).values(id=5, price=1))
        await eventually(lambda: heard, "the purge")
    assert [set(receipt.tags) for receipt in heard] == [{"a:b:5", "x:y"}]
    for _ in range(2):
        async with opened.engine.begin() as connection:
            for statement in made.drop:
                await connection.execute(text(statement))
    left = "SELECT count(*) FROM pg_trigger UNION ALL SELECT count(*) FROM pg_proc WHERE proname LIKE 'cacheinval%'"
    assert database.psql(left, name_of(opened)) == "0\n0"


async def test_a_column_that_is_not_there_is_found_when_the_triggers_are_made(
    opened: Shop, database: PostgreSQL
) -> None:
    """Not by the first write of another program, which would fail."""
    made = Outbox().triggers("product", tags=["product:{nope}"], dialect="postgresql")
    with pytest.raises(AssertionError, match="nope"):
        database.psql(str(made), name_of(opened))
    database.psql("UPDATE product SET price = 9", name_of(opened))


# -- death --------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_killed_at_any_step_from_the_commit_to_the_deletion_a_writer_loses_nothing(
    opened: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it dies, what it has committed reaches the replica through another relay."""
    killed, committed, lost = await death_at_every_step(opened, outbox=True)
    with capsys.disabled():
        print(f"\n{killed} killed, {committed} of them after the commit: no purge lost")  # noqa: T201  # the result
    assert lost == []
    assert killed > 20
    assert committed > 10


@pytest.mark.timeout(300)
async def test_without_the_outbox_a_writer_that_is_killed_loses_its_purge(opened: Shop) -> None:
    """The control: killed between the commit and a purge by hand, it leaves the old price where it was."""
    _, _, lost = await death_at_every_step(opened, outbox=False)
    assert lost
