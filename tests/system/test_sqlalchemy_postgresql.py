"""Watched sessions on PostgreSQL, where other writers are at work in the middle of a transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.util import await_only

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Base, Brand, Bundle, Label, Note, Product, Review, labels, tags_of
from tests.system.postgresql import PostgreSQL, postgresql

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """One cluster for all tests here."""
    with postgresql() as server:
        yield server


@pytest.fixture
async def engine(database: PostgreSQL) -> AsyncIterator[AsyncEngine]:
    """A new database with two brands, two labels and three products."""
    made = create_async_engine(database.url(database.database()))
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(made) as session:
        session.add_all([Brand(id=number) for number in (1, 2, 3)])
        session.add_all([Label(id=1), Label(id=2)])
        await session.flush()
        session.add_all([Product(id=number, brand_id=1 + (number == 3)) for number in (1, 2, 3)])
        await session.commit()
    yield made
    await made.dispose()


class Watched:
    """Sessions of one collector, and the tags of its purges."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.cache = HTTPCache()
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)
        self.collector = collect_changes(self.sessions, self.cache, TAGS)

    async def purged_by(self, work: Any) -> set[str]:
        """What a transaction purges that does this."""
        with capture_invalidations(self.cache) as receipts:
            async with self.sessions.begin() as session:
                await work(session)
        assert len(receipts) <= 1
        return set().union(*tags_of(receipts))


@pytest.fixture
async def watched(engine: AsyncEngine) -> AsyncIterator[Watched]:
    watched = Watched(engine)
    async with watched.cache:
        yield watched
    watched.collector.stop()


async def move(engine: AsyncEngine, number: int, brand: int) -> None:
    """Another program's transaction."""
    async with engine.begin() as connection:
        await connection.execute(update(Product.__table__).where(Product.id == number).values(brand_id=brand))  # type: ignore[arg-type]


async def test_a_row_that_somebody_moved_meanwhile_purges_where_it_is(watched: Watched, engine: AsyncEngine) -> None:
    """The session remembers brand 1; the page that shows the old price is that of brand 3."""

    async def change(session: AsyncSession) -> None:
        product = await session.get_one(Product, 1)
        assert product.brand_id == 1
        await move(engine, 1, 3)
        product.price = 9

    assert await watched.purged_by(change) == {"product:1", "brand:1", "brand:3", "products"}


async def test_a_row_is_locked_from_when_it_is_looked_at(watched: Watched, engine: AsyncEngine) -> None:
    """Between the look and the write nobody moves it."""
    tried: list[str] = []

    def interfere(*_: object) -> None:
        async def at_once() -> None:
            async with engine.begin() as connection:
                query = select(Product.id).where(Product.id == 1).with_for_update(skip_locked=True)
                tried.append("locked" if (await connection.execute(query)).first() is None else "free")

        await_only(at_once())

    # Heard before the row is looked at, and right before it is written.
    async with watched.sessions() as session:
        kind = type(session.sync_session)
    before = event.listens_for(kind, "before_flush", insert=True)
    before(interfere)
    before_updates(watched, interfere)
    await watched.purged_by(_discount)
    assert tried == ["free", "locked"]


async def _discount(session: AsyncSession) -> None:
    (await session.get_one(Product, 1)).price = 9


def before_updates(watched: Watched, work: Any) -> None:
    """Let another program do something between what is looked up for an UPDATE and the UPDATE itself."""
    to_come = [work]

    def interfere(_: object, __: object, statement: str, *___: object) -> None:
        if to_come and statement.startswith("UPDATE"):
            done = to_come.pop()()
            if done is not None:
                await_only(done)

    event.listen(watched.sessions.kw["bind"].sync_engine, "before_cursor_execute", interfere)


async def rows(watched: Watched, *columns: Any) -> list[Any]:
    """These columns of all products."""
    async with watched.sessions() as session:
        return [tuple(row) for row in await session.execute(select(*columns).order_by(Product.id))]


async def test_a_statement_changes_every_row_that_it_meets_and_purges_it(watched: Watched, engine: AsyncEngine) -> None:
    """A product is moved into the brand right before the statement is run: it is changed, as it is without a watch."""
    before_updates(watched, lambda: move(engine, 3, 1))

    async def reduce(session: AsyncSession) -> None:
        await session.execute(update(Product).where(Product.brand_id == 1).values(price=7))

    assert await watched.purged_by(reduce) == {"product:1", "product:2", "product:3", "brand:1", "products"}
    assert await rows(watched, Product.id, Product.price) == [(1, 7), (2, 7), (3, 7)]


async def test_a_row_whose_old_tags_nobody_has_read_purges_everything(watched: Watched, engine: AsyncEngine) -> None:
    """The statement moves rows, and another program made one more match after they were looked up."""
    before_updates(watched, lambda: move(engine, 3, 1))
    with capture_invalidations(watched.cache) as receipts:
        async with watched.sessions.begin() as session:
            result: Any = await session.execute(update(Product).where(Product.brand_id == 1).values(brand_id=2))
            assert result.rowcount == 3
    assert [receipt.everything for receipt in receipts] == [True]
    assert await rows(watched, Product.id, Product.brand_id) == [(1, 2), (2, 2), (3, 2)]


async def test_a_delete_of_rows_picked_by_chance_purges_those(watched: Watched) -> None:
    """Known from `RETURNING`, for a class that nothing hangs on."""
    left: list[int] = []

    async def thin_out(session: AsyncSession) -> None:
        await session.execute(insert(Note), [{"id": number, "product_id": 3} for number in range(20)])
        await session.commit()
        some = select(Note.id).order_by(func.random()).limit(5)
        result: Any = await session.execute(delete(Note).where(Note.id.in_(some)))
        assert result.rowcount == 5
        left.extend(await session.scalars(select(Note.id)))

    with capture_invalidations(watched.cache) as receipts:
        async with watched.sessions() as session:
            await thin_out(session)
            await session.commit()
    assert tags_of(receipts)[-1] == {"notes:3"} | {f"note:{number}" for number in set(range(20)) - set(left)}


async def test_data_changing_ctes_are_refused_or_purge_the_wide_tags(watched: Watched, engine: AsyncEngine) -> None:
    """Beside a query, inside it, and as the source of an INSERT."""
    moved = update(Product).where(Product.id == 1).values(brand_id=2).returning(Product.id)
    gone = delete(Note).returning(Note.id, Note.text)
    statements: list[Any] = [
        select(moved.cte().c.id),
        select(Product.id).add_cte(moved.cte("beside")),
        insert(Label).from_select(["id", "text"], select(gone.cte())),
    ]
    cache, sessions = HTTPCache(), async_sessionmaker(engine)
    wide = collect_changes(sessions, cache, TAGS, wide={Product: "all", Note: "notes", Label: "labels"})
    for statement, expected in zip(statements, ({"all"}, {"all"}, {"notes", "labels"}), strict=True):
        async with watched.sessions() as session:
            with pytest.raises(UnknownRows, match="another write inside"):
                await session.execute(statement)
        with capture_invalidations(cache) as receipts:
            async with sessions.begin() as session:
                await session.execute(statement)
        assert tags_of(receipts) == [expected]
    wide.stop()
    assert (await rows(watched, Product.id, Product.brand_id))[0] == (1, 2)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_what_is_written_in_autocommit_is_purged(database: PostgreSQL, engine: AsyncEngine, driver: str) -> None:
    """The session is rolled back, and the write stands."""
    name = engine.url.database
    assert name is not None
    at_once = create_async_engine(database.url(name, driver), isolation_level="AUTOCOMMIT")
    cache, sessions = HTTPCache(), async_sessionmaker(at_once)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts:
        async with sessions() as session:
            await session.execute(update(Label).where(Label.id == 1).values(text="x"))
            assert tags_of(receipts) == [{"label:1"}]
            await session.rollback()
    collector.stop()
    assert tags_of(receipts) == [{"label:1"}]
    async with engine.connect() as connection:
        assert (await connection.execute(select(Label.text).where(Label.id == 1))).scalar() == "x"
    await at_once.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_several_sets_of_parameters(database: PostgreSQL, engine: AsyncEngine, driver: str) -> None:
    """No `RETURNING` is to be had: the keys in them say which rows, and what has none is refused."""
    name = engine.url.database
    assert name is not None
    other = create_async_engine(database.url(name, driver))
    watched = Watched(other)
    table: Any = Product.__table__
    by_key = update(table).where(table.c.id == bindparam("which")).values(brand_id=bindparam("brand"))

    async def move_two(session: AsyncSession) -> None:
        await session.execute(by_key, [{"which": 1, "brand": 2}, {"which": 3, "brand": 1}, {"which": 99, "brand": 1}])

    expected = {"product:1", "product:3", "brand:1", "brand:2", "products"}
    assert await watched.purged_by(move_two) == expected
    subquery = select(Brand.id).where(Brand.id == bindparam("which")).scalar_subquery()
    statement = update(table).where(table.c.brand_id == subquery).values(brand_id=bindparam("brand"))
    async with watched.sessions() as session:
        with pytest.raises(UnknownRows, match="other writers may change"):
            await session.execute(statement, [{"which": 1, "brand": 2}, {"which": 2, "brand": 1}])
    watched.collector.stop()
    await other.dispose()


async def test_statements_of_every_kind(watched: Watched) -> None:
    """Parameters, joins, RETURNING, keys from sequences, subclasses, cascades and association tables."""
    product_3 = {"product:3", "brand:2", "products"}

    async def by_parameter(session: AsyncSession) -> None:
        statement = update(Product).where(Product.id == bindparam("which")).values(price=3)
        await session.execute(statement, {"which": 3}, execution_options={"synchronize_session": False})

    async def by_join(session: AsyncSession) -> None:
        statement = update(Product).where(Product.brand_id == Brand.id, Brand.id == 2).values(price=5)
        assert (await session.scalars(statement.returning(Product.price))).all() == [5]

    async def by_key(session: AsyncSession) -> None:
        await session.execute(update(Product), [{"id": 3, "price": 8}])

    for each in (by_parameter, by_join, by_key):
        assert await watched.purged_by(each) == product_3

    async def add(session: AsyncSession) -> None:
        await session.execute(insert(Note), [{"id": 7, "product_id": 3}])
        await session.execute(insert(Label).values([{"id": 3}, {"id": 4}]))
        await session.execute(insert(Review), [{"product_id": 3}, {"product_id": 3, "stars": 1}])
        await session.execute(insert(labels).values(product_id=3, label_id=2))
        await session.execute(
            upsert(Label).values(id=4, text="x").on_conflict_do_update(index_elements=["id"], set_={"text": "y"})
        )

    assert await watched.purged_by(add) == product_3 | {
        "note:7", "notes:3", "label:3", "label:4", "stars:5", "stars:1", "reviews:2", "label:2",
    }  # fmt: skip

    async def remove(session: AsyncSession) -> None:
        await session.execute(delete(Review))
        await session.execute(delete(Product).where(Product.id == 3))

    assert await watched.purged_by(remove) == product_3 | {
        "note:7", "notes:3", "stars:5", "stars:1", "reviews:2", "label:2",
    }  # fmt: skip

    async def refused(session: AsyncSession) -> None:
        session.add(Bundle(id=9, brand_id=1))
        statement = upsert(Product).values(id=1, brand_id=2)
        await session.execute(statement.on_conflict_do_nothing())
        moving = statement.on_conflict_do_update(index_elements=["id"], set_={"brand_id": 2})
        with pytest.raises(UnknownRows):
            await session.execute(moving)

    assert await watched.purged_by(refused) == {"product:9", "brand:1", "products", "bundles"}


async def test_savepoints_and_related_rows(watched: Watched) -> None:
    """The flush's own changes, locked and read on PostgreSQL, joined and released."""

    async def work(session: AsyncSession) -> None:
        async with session.begin_nested():
            brand = await session.get_one(Brand, 1)
            await session.delete(brand)
        inner = await session.begin_nested()
        session.add(Label(id=8))
        await session.flush()
        await inner.rollback()

    assert await watched.purged_by(work) == {"brand:1", "product:1", "product:2", "products"}
