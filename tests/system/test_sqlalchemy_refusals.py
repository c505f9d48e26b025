"""Watched sessions on PostgreSQL, where it refuses a look, hides a row, or keeps another one than it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Numeric, Table, create_engine, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.system.postgresql import PostgreSQL, postgresql


class Base(DeclarativeBase):
    pass


class Tier(Base):
    """Its key is rounded."""

    __tablename__ = "tier"
    amount: Mapped[Decimal] = mapped_column(Numeric(6, 1), primary_key=True)


class Shop(Base):
    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    tills: Mapped[list[Till]] = relationship(secondary="shop_till")


class Till(Base):
    """It goes with its shop."""

    __tablename__ = "till"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int | None] = mapped_column(ForeignKey("shop.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(default="")


places = Table(
    "shop_till",
    Base.metadata,
    Column("shop_id", ForeignKey("shop.id"), primary_key=True),
    Column("till_id", ForeignKey("till.id"), primary_key=True),
)
TAGS: dict[type, Any] = {
    Tier: ["tier:{amount}"],
    Shop: ["shop:{id}", "named:{name}"],
    Till: ["till:{id}", "named:{name}"],
}
_ROLE = """
DO $$ BEGIN CREATE ROLE clerk LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA public TO clerk;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """One cluster for all tests here."""
    with postgresql() as started:
        yield started


class Database:
    """A new database with three shops of a till each, for a role with few rights."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._name = server.database()
        self.engine = create_engine(self.url())
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add_all(Shop(id=number, name=f"shop-{number}") for number in (1, 2, 3))
            session.flush()
            session.add_all(Till(id=number, shop_id=number, name=f"till-{number}") for number in (1, 2, 3))
            session.commit()
        self.clerk = create_engine(self.url().replace("postgres@", "clerk@"))

    def url(self, driver: str = "psycopg") -> str:
        """Where its owner finds it."""
        return self._server.url(self._name, driver)

    def run(self, script: str) -> str:
        """What the owner does."""
        return self._server.psql(_ROLE + script, self._name)

    def close(self) -> None:
        self.engine.dispose()
        self.clerk.dispose()


@pytest.fixture
def database(server: PostgreSQL) -> Iterator[Database]:
    made = Database(server)
    yield made
    made.close()


def purged_by(engine: Engine, work: Callable[[Session], Any], tags: Any = None, **options: Any) -> set[str]:
    """The tags that a transaction purges; `everything` where it purges all."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS if tags is None else tags, **options)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    every = {tag for each in receipts for tag in each.tags}
    return every | {"everything"} if any(each.everything for each in receipts) else every


_GIVEN = Decimal("2.25")
ROUNDED: dict[str, Callable[[Session], Any]] = {
    "flush": lambda session: session.add(Tier(amount=_GIVEN)),
    "values": lambda session: session.execute(insert(Tier).values(amount=_GIVEN)),
    "parameters": lambda session: session.execute(insert(Tier), [{"amount": _GIVEN}]),
    "mappings": lambda session: session.bulk_insert_mappings(Tier.__mapper__, [{"amount": _GIVEN}]),
    "objects": lambda session: session.bulk_save_objects([Tier(amount=_GIVEN)]),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_key_that_the_database_rounds_purges_everything(database: Database, name: str) -> None:
    """The row stands under another key, so that the look does not find it: unless it has wide tags, all is purged."""
    assert purged_by(database.engine, ROUNDED[name]) == {"everything"}
    database.run("DELETE FROM tier")
    assert purged_by(database.engine, ROUNDED[name], wide={Tier: "tiers"}) >= {"tiers"}


HIDDEN: dict[str, Callable[[Session], Any]] = {
    "values": lambda session: session.execute(insert(Shop).values(id=51, name="x")),
    "parameters": lambda session: session.execute(insert(Shop), [{"id": 51, "name": "x"}]),
    "mappings": lambda session: session.bulk_insert_mappings(Shop.__mapper__, [{"id": 51, "name": "x"}]),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_row_that_its_role_may_write_and_not_see_purges_everything(database: Database, name: str) -> None:
    """Row level security hides it from the look, and not from others."""
    database.run(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk; ALTER TABLE shop ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY seen ON shop FOR SELECT USING (id < 50); CREATE POLICY new ON shop FOR INSERT WITH CHECK (true);"
    )
    assert purged_by(database.clerk, HIDDEN[name]) == {"everything"}


def test_a_link_to_a_row_that_its_role_may_not_see_purges_everything(database: Database) -> None:
    """A foreign key says that the row is there, and so its tags are to be purged."""
    database.run(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk; ALTER TABLE shop ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY seen ON shop FOR SELECT USING (id < 3);"
    )
    link = insert(places)
    seen = purged_by(database.clerk, lambda session: session.execute(link, {"shop_id": 1, "till_id": 1}))
    assert seen == {"shop:1", "named:shop-1", "till:1", "named:till-1"}
    assert "everything" in purged_by(
        database.clerk, lambda session: session.execute(link, {"shop_id": 3, "till_id": 3})
    )


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_flush_that_fails_purges_nothing(database: Database, driver: str) -> None:
    """A client that is turned away purges nothing, whatever the driver says of a transaction that is rolled back."""
    database.run("CREATE UNIQUE INDEX one_name ON shop (name)")
    engine = create_async_engine(database.url(driver))
    cache, sessions = HTTPCache(), async_sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts:
        async with sessions() as session:
            (await session.get_one(Shop, 1)).name = "shop-2"
            with pytest.raises(IntegrityError):
                await session.commit()
    collector.stop()
    await engine.dispose()
    assert receipts == []
