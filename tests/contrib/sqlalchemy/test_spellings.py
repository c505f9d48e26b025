"""Keys that an app gives in other types and spellings than those in which the database has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    ARRAY,
    CHAR,
    Column,
    Date,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    TypeDecorator,
    Uuid,
    create_engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    relationship,
    sessionmaker,
)

from fastapi_cacheinval import HTTPCache, render_value
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, fits, is_plain
from fastapi_cacheinval.testing import capture_invalidations


class Base(DeclarativeBase):
    pass


class Lower(TypeDecorator[str]):
    """It loads what finds no row."""

    impl = String
    cache_ok = True

    def column_expression(self, column: Any) -> Any:
        return func.lower(column)


def _kept(kind: Any) -> Any:
    number = len(Base.registry._class_registry)
    columns = {"id": Column(kind, primary_key=True), "brand": Column(String, default="new")}
    return type(f"Kept{number}", (Base,), {"__tablename__": f"kept{number}", **columns})


MUTABLE = "bytes that may change"
UPPER = "00000000-0000-0000-0000-00000000ABCD"
# The class, the key as the app gives it, and as it is loaded.
CASES: dict[str, tuple[Any, Any, Any]] = {
    "a text for a number": (_kept(Integer), "5", 5),
    "a fraction for a number": (_kept(Integer), 5.0, 5),
    "true for a number": (_kept(Integer), True, 1),
    "a number for a text": (_kept(String), 5, "5"),
    "a time for a day": (_kept(Date), datetime(2026, 1, 2, 3, tzinfo=UTC), date(2026, 1, 2)),
    "capitals": (_kept(Uuid(as_uuid=False)), UPPER, UPPER.lower()),
    "no hyphens": (_kept(Uuid(as_uuid=False)), UPPER.replace("-", ""), UPPER.lower()),
    "three digits": (_kept(Numeric(6, 2)), Decimal("30.504"), Decimal("30.50")),
    "a type that loads something else": (_kept(Lower), "ABC", "abc"),
    MUTABLE: (_kept(LargeBinary), bytearray(b"ab"), b"ab"),
    "text without case": (_kept(String(collation="NOCASE")), "ABC", "ABC"),
}
FOUND = {**CASES, "text without case": (CASES["text without case"][0], "abc", "ABC")}
Work = Callable[[Session, Any, Any], Any]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    made = create_engine(f"sqlite:///{tmp_path / 'kept.db'}")
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def purged_by(engine: Any, cls: Any, work: Callable[[Session], Any]) -> tuple[set[str], bool]:
    """The tags of a transaction, and whether it purges everything."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: ["kept:{id}", "brand:{brand}"]})
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    return {tag for each in receipts for tag in each.tags}, any(each.everything for each in receipts)


def _detached(cls: Any, key: Any) -> Any:
    found = cls(id=key)
    make_transient_to_detached(found)
    return found


INSERTS: dict[str, Work] = {
    "add": lambda session, cls, key: session.add(cls(id=key, brand="new")),
    "merge": lambda session, cls, key: session.merge(cls(id=key, brand="new")),
    "objects": lambda session, cls, key: session.bulk_save_objects([cls(id=key, brand="new")]),
    "mappings": lambda session, cls, key: session.bulk_insert_mappings(cls.__mapper__, [{"id": key, "brand": "new"}]),
    "values": lambda session, cls, key: session.execute(insert(cls).values(id=key, brand="new")),
    "parameters": lambda session, cls, key: session.execute(insert(cls), [{"id": key, "brand": "new"}]),
    "rows of values": lambda session, cls, key: session.execute(insert(cls).values([{"id": key, "brand": "new"}])),
    "into the table": lambda session, cls, key: session.execute(insert(cls.__table__), {"id": key, "brand": "new"}),
}
UPDATES: dict[str, Work] = {
    "mappings": lambda session, cls, key: session.bulk_update_mappings(cls.__mapper__, [{"id": key, "brand": "new"}]),
    "parameters": lambda session, cls, key: session.execute(update(cls), [{"id": key, "brand": "new"}]),
    "condition": lambda session, cls, key: session.execute(update(cls).where(cls.id == key).values(brand="new")),
}


def needed(given: Any, *brands: str) -> set[str]:
    """The tags of a row with this key."""
    return {f"kept:{render_value(given)}", *(f"brand:{brand}" for brand in brands)}


@pytest.mark.parametrize("how", INSERTS)
@pytest.mark.parametrize("name", CASES)
def test_a_new_row_purges_its_tags_as_it_is_loaded(engine: Any, name: str, how: str) -> None:
    """Or everything, where its key as it is loaded may not find it; the write succeeds as it does without a watch."""
    cls, key, loaded = CASES[name]
    if how in ("add", "merge") and name == MUTABLE:
        # SQLAlchemy has no objects with such keys.
        key = loaded
    tags, everything = purged_by(engine, cls, lambda session: INSERTS[how](session, cls, key))
    assert everything or needed(loaded, "new") <= tags
    assert not everything or name == "a type that loads something else"
    with engine.connect() as connection:
        assert connection.scalars(select(cls.id)).all() == [loaded]


@pytest.mark.parametrize("how", UPDATES)
@pytest.mark.parametrize("name", FOUND)
def test_a_changed_row_purges_its_old_and_new_tags(engine: Any, name: str, how: str) -> None:
    """Whatever the app calls it, if SQLAlchemy finds it by that."""
    cls, key, loaded = FOUND[name]
    if name == MUTABLE:
        # SQLAlchemy finds no rows by such keys.
        key = loaded
    with Session(engine) as session:
        session.execute(insert(cls).values(id=CASES[name][1], brand="old"))
        session.commit()
    tags, everything = purged_by(engine, cls, lambda session: UPDATES[how](session, cls, key))
    with engine.connect() as connection:
        changed = connection.scalars(select(cls.brand)).all() == ["new"]
    assert everything or not changed or needed(loaded, "old", "new") <= tags
    assert changed or how == "condition"


@pytest.mark.parametrize("name", [name for name in FOUND if name != MUTABLE])
def test_a_deleted_row_purges_its_tags(engine: Any, name: str) -> None:
    """The object of it has the key that the app gave."""
    cls, key, loaded = FOUND[name]
    with Session(engine) as session:
        session.execute(insert(cls).values(id=CASES[name][1], brand="old"))
        session.commit()
    tags, everything = purged_by(engine, cls, lambda session: session.delete(_detached(cls, key)))
    with engine.connect() as connection:
        assert connection.scalars(select(cls.brand)).all() == []
    assert needed(loaded, "old") <= tags
    assert not everything


@pytest.mark.parametrize("write", [lambda cls: update(cls).values(brand="new"), delete])
def test_a_statement_on_rows_that_their_loaded_keys_do_not_find_purges_everything(engine: Any, write: Any) -> None:
    """The database names them by what it does not find them by, before the statement as after it."""
    cls = CASES["a type that loads something else"][0]
    with Session(engine) as session:
        session.add(cls(id="ABC", brand="old"))
        session.commit()
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: lambda one: [f"brand:{one.brand}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(write(cls))
    collector.stop()
    assert any(each.everything for each in receipts)


def test_a_type_that_stands_otherwise_on_another_database() -> None:
    """A key is taken as it is given only where every database has it so."""
    assert is_plain(String(), "a")
    assert is_plain(Integer().with_variant(Integer(), "sqlite"), 5)
    assert not is_plain(String().with_variant(CHAR(6), "postgresql"), "a")
    assert not is_plain(Uuid(as_uuid=False), UPPER)
    assert not is_plain(String(collation="NOCASE"), "a")
    assert is_plain(String(2), "ab")
    assert not is_plain(String(2), "ab ")
    assert not fits(Integer(), "5")
    assert not fits(ARRAY(Integer), [1])
    assert not fits(Numeric(), 1.5)
    assert fits(Lower(), "a")
    assert fits(Numeric(), Decimal(1))


def test_keys_are_the_same_where_they_are_written_alike() -> None:
    """They stand in sets, whatever their values are."""
    assert {Identity((1,)), Identity((True,)), Identity((1,))} == {Identity((1,)), Identity((True,))}
    assert Identity((1,)) != Identity((1.0,))
    assert Identity(([1],)) == Identity(([1],))
    assert len({Identity((bytearray(b"a"),)), Identity((bytearray(b"a"),)), Identity(([1], 2))}) == 2
    assert Identity((Decimal("1.0"),)) != Identity((Decimal("1.00"),))


def test_links_by_keys_of_another_spelling(engine: Any) -> None:
    """The sides of an association row have tags, too."""
    left, right = CASES["a text for a number"][0], CASES["capitals"][0]
    both = Table(
        "both",
        Base.metadata,
        Column("left", ForeignKey(left.id), primary_key=True),
        Column("right", ForeignKey(right.id), primary_key=True),
    )
    left.rights = relationship(right, secondary=both)
    both.create(engine)
    with Session(engine) as session:
        session.add_all([left(id=5), right(id=UPPER)])
        session.commit()
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {left: ["left:{id}"], right: ["right:{id}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(both.insert(), [{"left": "5", "right": UPPER}])
    collector.stop()
    assert {tag for each in receipts for tag in each.tags} == {"left:5", f"right:{UPPER.lower()}"}


class Side(Base):
    __tablename__ = "side"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    others: Mapped[list[Far]] = relationship(secondary="named")


class Far(Base):
    __tablename__ = "far"
    id: Mapped[int] = mapped_column(primary_key=True)


named = Table(
    "named",
    Base.metadata,
    Column("side", Uuid(as_uuid=False), ForeignKey(Side.id), primary_key=True),
    Column("far", ForeignKey(Far.id), primary_key=True),
)


@pytest.mark.parametrize("write", [insert(named).values(side=UPPER, far=1), delete(named)], ids=["insert", "delete"])
def test_links_whose_foreign_key_has_another_type_than_what_it_names(engine: Any, write: Any) -> None:
    """What the look refuses ends no statement: everything is purged."""
    with engine.begin() as connection:
        connection.execute(insert(Side).values(id=UUID(UPPER)))
        connection.execute(insert(Far).values(id=1))
        if write.is_delete:
            connection.execute(insert(named).values(side=UPPER.lower(), far=1))
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {Side: ["side:{id}"], Far: ["far:{id}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        result: Any = session.execute(write)
        assert result.rowcount == 1
    collector.stop()
    assert any(each.everything for each in receipts)
