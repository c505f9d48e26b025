"""Watched sessions on PostgreSQL, where it refuses a look, hides a row, or keeps another one than it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Numeric,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.system.postgresql import PostgreSQL


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


class Stall(ConcreteBase, Base):
    """It is read from a UNION with the classes below it."""

    __tablename__ = "stall"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "stall", "concrete": True}  # noqa: RUF012


class Kiosk(Stall):
    __tablename__ = "kiosk"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "kiosk", "concrete": True}  # noqa: RUF012


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


def _delete_an_object(session: Session) -> None:
    session.delete(session.get_one(Shop, 1))


DELETES: dict[str, Callable[[Session], Any]] = {
    "flush": _delete_an_object,
    "key": lambda session: session.execute(delete(Shop).where(Shop.id == 1)),
    "condition": lambda session: session.execute(delete(Shop).where(Shop.name == "shop-1")),
}


@pytest.mark.parametrize("rights", ["SELECT, DELETE ON shop, till", "ALL ON shop TO clerk; GRANT SELECT ON till"])
@pytest.mark.parametrize("name", DELETES)
def test_a_role_that_may_lock_no_rows_deletes_as_without_a_watch(
    database: Database, name: str, rights: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock takes the right to UPDATE, on what goes along too: the look does without, and a warning says so."""
    database.run(f"GRANT {rights} TO clerk; GRANT SELECT ON shop_till TO clerk")
    expected = {"shop:1", "named:shop-1", "till:1", "named:till-1"}
    assert purged_by(database.clerk, DELETES[name]) == expected
    assert database.run("SELECT count(*) FROM shop; SELECT count(*) FROM till") == "2\n2"
    assert "lock no rows of Till" in caplog.text
    caplog.clear()
    assert purged_by(database.clerk, lambda session: session.execute(delete(Shop))) >= {"named:till-2", "named:till-3"}
    assert "lock no rows" not in caplog.text


def test_a_role_that_may_lock_no_rows_in_autocommit(database: Database) -> None:
    """There is no transaction that the refusal would end, and none to stand in."""
    database.run("GRANT SELECT, DELETE ON shop, till TO clerk; GRANT SELECT ON shop_till TO clerk")
    at_once = database.clerk.execution_options(isolation_level="AUTOCOMMIT")
    assert purged_by(at_once, DELETES["key"]) == {"shop:1", "named:shop-1", "till:1", "named:till-1"}


def test_rows_are_locked_where_they_may_be(database: Database) -> None:
    """The first look of a class, which stands in a savepoint, keeps its locks, as those after it do."""
    for number in (1, 2):
        tried: list[Any] = []

        def interfere(*given: Any, tried: list[Any] = tried, number: int = number) -> None:
            query = select(Shop.id).where(Shop.id == number).with_for_update(skip_locked=True)
            if given[2].startswith("UPDATE"):
                with Session(database.engine) as other:
                    tried.append(other.scalars(query).all())

        event.listen(database.engine, "before_cursor_execute", interfere)
        try:
            changed = purged_by(database.engine, lambda session: setattr(session.get(Shop, number), "name", "new"))  # noqa: B023
        finally:
            event.remove(database.engine, "before_cursor_execute", interfere)
        assert changed == {f"shop:{number}", f"named:shop-{number}", "named:new"}
        assert tried == [[]]


def test_a_view_whose_rows_cannot_be_locked(database: Database) -> None:
    """Its rows are grouped, and a trigger writes for it."""
    database.run(
        """
        ALTER TABLE shop RENAME TO shops;
        CREATE VIEW shop AS SELECT id, min(name) AS name FROM shops GROUP BY id;
        CREATE FUNCTION write_shop() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE shops SET name = new.name WHERE id = old.id; RETURN new; END $$;
        CREATE TRIGGER writing INSTEAD OF UPDATE ON shop FOR EACH ROW EXECUTE FUNCTION write_shop();
        """
    )
    flushed = purged_by(database.engine, lambda session: setattr(session.get(Shop, 1), "name", "new"))
    assert flushed == {"shop:1", "named:shop-1", "named:new"}
    renaming = update(Shop).where(Shop.id == 2).values(name="newer")
    assert purged_by(database.engine, lambda session: session.execute(renaming)) == {
        "shop:2", "named:shop-2", "named:newer",
    }  # fmt: skip


_TABLE: Any = Shop.__table__
_TWICE = [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}, {"id": 7, "name": "c"}]
RESULTS: dict[str, tuple[Any, Any, set[str]]] = {
    "one set of parameters": (insert(_TABLE), [{"name": "a"}], {"shop:51", "named:a"}),
    "a list of no parameters": (insert(Shop).values(name="a"), [], {"shop:51", "named:a"}),
    "defaults": (
        insert(_TABLE).return_defaults(_TABLE.c.name), [{"name": "a"}, {"name": "b"}],
        {"shop:51", "named:a", "shop:52", "named:b"},
    ),
    "an update with one set": (
        update(_TABLE).where(_TABLE.c.id == bindparam("key")).values(name=bindparam("new")), [{"key": 1, "new": "a"}],
        {"shop:1", "named:shop-1", "named:a"},
    ),
    "a delete with one set": (delete(_TABLE).where(_TABLE.c.id == bindparam("key")), [{"key": 1}], {"shop:1", "named:shop-1"}),
}  # fmt: skip
_ASKED = ("rowcount", "returns_rows", "inserted_primary_key_rows", "returned_defaults_rows", "keys", "all")


def _told(value: Any) -> Any:
    call: Any = value
    return list(call()) if callable(value) else value


def _said(result: Any) -> list[str]:
    """All that a result says, or the kind of the error that it raises instead."""
    said: list[str] = []
    for name in _ASKED:
        try:
            value: Any = getattr(result, name)
            said.append(f"{name}: {_told(value)}")
        except SQLAlchemyError as error:
            said.append(f"{name}: {type(error).__name__}")
    return said


@pytest.mark.parametrize("name", RESULTS)
def test_lists_of_parameters_give_the_result_that_they_give_without_a_watch(database: Database, name: str) -> None:
    """A list of one set, or of none, is one run; `return_defaults()` is the app's own."""
    statement, parameters, expected = RESULTS[name]
    database.run("ALTER TABLE till DROP CONSTRAINT till_shop_id_fkey")
    said: list[list[str]] = []
    with Session(database.engine) as session:
        session.execute(text("SELECT setval('shop_id_seq', 50)"))
        said.append(_said(session.execute(statement, parameters)))
        session.rollback()
        session.execute(text("SELECT setval('shop_id_seq', 50)"))
        session.commit()
    tags = {Shop: TAGS[Shop]}
    assert (
        purged_by(database.engine, lambda session: said.append(_said(session.execute(statement, parameters))), tags)
        == expected
    )
    assert said[0] == said[1]


@pytest.mark.parametrize("into", [Shop, _TABLE])
def test_an_upsert_is_run_for_each_set_of_parameters(database: Database, into: Any) -> None:
    """Two sets may meet the same row, which one statement with both may not; triggers fire for each, too."""
    statement = upsert(into)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"name": statement.excluded.name})
    database.run(
        """
        CREATE TABLE fired (n int);
        CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fired VALUES (1); RETURN NULL; END $$;
        CREATE TRIGGER fires AFTER INSERT ON shop FOR EACH STATEMENT EXECUTE FUNCTION fire();
        """
    )
    tags = {Shop: ["shop:{id}"]}
    assert purged_by(database.engine, lambda session: session.execute(statement, _TWICE), tags) == {"shop:1", "shop:7"}
    assert database.run("SELECT name FROM shop WHERE id = 1; SELECT count(*) FROM fired") == "b\n3"


UNITED: dict[str, Callable[[Session, Any], Any]] = {
    "flush": lambda session, cls: setattr(session.get_one(cls, 1), "name", "new"),
    "statement on the table": lambda session, cls: session.execute(update(cls.__table__).values(name="new")),
    "mappings": lambda session, cls: session.bulk_update_mappings(cls, [{"id": 1, "name": "new"}]),
}


@pytest.mark.parametrize("cls", [Stall, Kiosk])
@pytest.mark.parametrize("name", UNITED)
def test_rows_of_a_concrete_class_are_locked_in_its_own_table(database: Database, name: str, cls: Any) -> None:
    """PostgreSQL locks no rows of a UNION, nor of a table that stands inside it."""
    with Session(database.engine) as session:
        session.add(cls(id=1, name="old"))
        session.commit()
    tried: list[Any] = []

    def interfere(_: Any, __: Any, statement: str, *___: object) -> None:
        if statement.startswith("UPDATE"):
            table = cls.__table__
            with Session(database.clerk) as other:
                tried.append(other.execute(select(table.c.id).with_for_update(skip_locked=True)).all())

    database.run("GRANT ALL ON stall, kiosk TO clerk")
    event.listen(database.engine, "before_cursor_execute", interfere)
    tags = {Stall: ["stall:{id}", "named:{name}"]}
    assert purged_by(database.engine, lambda session: UNITED[name](session, cls), tags) == {
        "stall:1", "named:old", "named:new",
    }  # fmt: skip
    assert tried == [[]]
