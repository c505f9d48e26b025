"""A row that is of another class of its hierarchy than who writes it says, or that a write makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, ForeignKey, Integer, Table, insert, inspect, join, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column

from fastapi_cacheinval import TagTemplate
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows
from tests.contrib.sqlalchemy.compared import Compare
from tests.contrib.sqlalchemy.store import obedient


class Own(DeclarativeBase):
    pass


class Thing(Own):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "thing"}  # noqa: RUF012


things: Any = Thing.__table__


class Lamp(Thing):
    """In the same table."""

    watts: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "lamp"}  # noqa: RUF012


class Chair(Thing):
    """In the same table, too."""

    legs: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "chair"}  # noqa: RUF012


class Desk(Thing):
    """It has a table of its own besides."""

    __tablename__ = "desk"
    id: Mapped[int] = mapped_column(ForeignKey("thing.id"), primary_key=True)
    wide: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "desk"}  # noqa: RUF012


class Plant(ConcreteBase, Own):
    __tablename__ = "plant"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "plant", "concrete": True}  # noqa: RUF012


class Tree(Plant):
    """It has no row in the table of its base."""

    __tablename__ = "tree"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "tree", "concrete": True}  # noqa: RUF012


halves = Table("half", Own.metadata, Column("id", Integer, primary_key=True), Column("x", Integer, default=0))
others = Table(
    "other",
    Own.metadata,
    Column("id", Integer, primary_key=True),
    Column("half_id", ForeignKey("half.id")),
    Column("y", Integer, default=0),
)


class Both(Own):
    """A class on two tables that no class has alone."""

    __table__ = join(halves, others, halves.c.id == others.c.half_id)
    id = column_property(halves.c.id, others.c.half_id)
    other_id = others.c.id
    __mapper_args__ = {"primary_key": [halves.c.id, others.c.id]}  # noqa: RUF012


TAGS: dict[str, dict[Any, list[str]]] = {
    "by key": {Thing: ["thing:{id}"], Lamp: ["lamp:{id}"], Chair: ["chair:{id}"], Desk: ["desk:{id}"]},
    "by value": {Thing: ["thing:{id}", "name:{name}"], Lamp: ["watts:{watts}"], Chair: ["legs:{legs}"]},
    "of one": {Chair: ["chair:{id}", "legs:{legs}"]},
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = obedient(tmp_path / "things.db")
    Own.metadata.create_all(made)
    with Session(made) as session:
        session.add_all([Thing(id=1), Lamp(id=2, watts=5), Chair(id=3, legs=4), Desk(id=4), Plant(id=1), Tree(id=2)])
        session.execute(insert(halves), {"id": 1})
        session.execute(insert(others), {"id": 2, "half_id": 1})
        session.commit()
    yield made
    made.dispose()


def _rows_with(tags: dict[Any, list[str]]) -> Callable[[Connection], Iterable[tuple[str, Any]]]:
    """Each row as the class says that it is of, once for each of its tags."""

    def rows(connection: Connection) -> Iterator[tuple[str, Any]]:
        with Session(connection) as session:
            for target in session.scalars(select(Thing).order_by(Thing.id)):
                mapper = inspect(type(target))
                state = (mapper, *(getattr(target, each.key) for each in mapper.column_attrs))
                for base in mapper.iterate_to_root():
                    for template in map(TagTemplate.parse, tags.get(base.class_, ())):
                        tag = template.render({name: getattr(target, name) for name in template.names})
                        if tag is not None:
                            yield tag, state

    return rows


def _set(session: Session, cls: Any, number: int, **values: Any) -> None:
    target = session.get_one(cls, number)
    for name, value in values.items():
        setattr(target, name, value)


def _change(cls: Any, number: int, **values: Any) -> Any:
    return update(cls).where(Thing.id == number).values(**values).execution_options(synchronize_session=False)


WORK: dict[str, Callable[[Session], Any]] = {
    "an object that becomes another": lambda s: _set(s, Lamp, 2, kind="chair", name="n"),
    "an object of the base that becomes another": lambda s: _set(s, Thing, 1, kind="chair", name="n"),
    "an object that is no longer one": lambda s: _set(s, Chair, 3, kind="thing", name="n"),
    "a new object that is another": lambda s: s.add(Lamp(id=9, kind="chair", name="n")),
    "an object merged as its base": lambda s: s.merge(Thing(id=3, name="n")),
    "a statement on the class": lambda s: s.execute(_change(Lamp, 2, kind="chair", name="n")),
    "a statement on the base": lambda s: s.execute(_change(Thing, 3, kind="lamp")),
    "a statement on the table": lambda s: s.execute(update(things).where(Thing.id == 3).values(kind="lamp")),
    "a statement by key": lambda s: s.execute(update(Lamp), [{"id": 2, "kind": "chair"}]),
    "a statement by key of another's row": lambda s: s.execute(update(Lamp), [{"id": 3, "name": "n"}]),
    "mappings of another's row": lambda s: s.bulk_update_mappings(Lamp, [{"id": 3, "name": "n"}]),
    "mappings of a row of the base": lambda s: s.bulk_update_mappings(Lamp, [{"id": 1, "name": "n"}]),
    "mappings over two tables": lambda s: s.bulk_update_mappings(Desk, [{"id": 3, "name": "n"}]),
    "mappings that make it another": lambda s: s.bulk_update_mappings(Lamp, [{"id": 2, "kind": "chair"}]),
    "an insert that says another": lambda s: s.execute(insert(Lamp).values(id=9, kind="chair", name="n")),
}


# SQLAlchemy has a word for it, and writes it.
@pytest.mark.filterwarnings("ignore:Flushing object .* with incompatible polymorphic identity")
@pytest.mark.parametrize("work", list(WORK))
@pytest.mark.parametrize("tags", list(TAGS))
def test_a_row_has_the_tags_of_every_class_that_it_was_and_is_of(engine: Engine, tags: str, work: str) -> None:
    """Whichever class the write names: the discriminator in the row counts, before and after."""
    purged, needed = Compare(TAGS[tags], _rows_with(TAGS[tags]))(engine, WORK[work])
    assert purged >= needed


LEAVING: dict[str, tuple[Callable[[Session], Any], set[str]]] = {
    "an object": (lambda s: _set(s, Desk, 4, kind="thing", name="n"), {"named:", "named:n"}),
    "an object that becomes another": (lambda s: _set(s, Desk, 4, kind="chair"), {"named:"}),
    "an object merged as its base": (lambda s: s.merge(Thing(id=4, name="n")), {"named:", "named:n"}),
    "a statement": (lambda s: s.execute(_change(Thing, 4, kind="lamp")), {"named:"}),
    "a statement by key": (lambda s: s.execute(update(Thing), [{"id": 4, "kind": "thing"}]), {"named:"}),
    "a statement that names no class": (lambda s: s.execute(_change(Thing, 4, kind="nothing")), {"named:"}),
}


@pytest.mark.filterwarnings("ignore:Flushing object .* with incompatible polymorphic identity")
@pytest.mark.parametrize("work", list(LEAVING))
def test_a_row_that_stays_in_the_table_of_a_class_that_it_has_left(engine: Engine, work: str) -> None:
    """Nothing can load it as an object of that class any more, and the functions of that class do not get it."""
    tags = {Thing: lambda thing: [f"named:{thing.name}"], Desk: ["desk:{wide}"]}
    change, named = LEAVING[work]
    purged, _ = Compare(tags, lambda connection: iter(()))(engine, change)
    assert purged == {"desk:0", *named}


UPSERTS: dict[str, Any] = {
    "another's row": upsert(Lamp).values(id=3, kind="lamp", name="n"),
    "a row that becomes another": upsert(Thing).values(id=3, kind="lamp", name="n"),
}


@pytest.mark.parametrize("work", list(UPSERTS))
@pytest.mark.parametrize("tags", list(TAGS))
def test_an_upsert_may_meet_any_row_of_the_hierarchy(engine: Engine, tags: str, work: str) -> None:
    """It purges the tags of that row, or is refused before it is run."""
    found = UPSERTS[work].on_conflict_do_update(index_elements=["id"], set_={"kind": "lamp", "name": "n"})
    with pytest.raises(UnknownRows, match="may replace rows"):
        Compare(TAGS[tags], _rows_with(TAGS[tags]))(engine, lambda session: session.execute(found))
    named = UPSERTS[work].on_conflict_do_update(index_elements=["id"], set_={"name": "n"})
    if tags != "by value":
        purged, needed = Compare(TAGS[tags], _rows_with(TAGS[tags]))(engine, lambda session: session.execute(named))
        assert purged >= needed


def test_an_insert_that_tells_no_key_is_of_a_row_of_the_class_that_it_says(engine: Engine) -> None:
    """Its discriminator names that, and neither the statement nor its result, which takes no key, names the row."""
    rows = _rows_with(TAGS["of one"])
    statement = insert(Lamp).values(kind="chair", name="n").returning(Lamp.name)
    purged, needed = Compare(TAGS["of one"], rows)(engine, lambda session: session.execute(statement).all())
    assert needed
    assert purged >= needed
    statement = statement.returning(Lamp.name)
    with pytest.raises(UnknownRows, match="Chair"):
        Compare(TAGS["of one"], rows)(engine, lambda session: session.execute(statement).all())
    wide = Compare(TAGS["of one"], rows, wide={Chair: "chairs"})
    purged, _ = wide(engine, lambda session: session.execute(statement).all())
    assert purged == {"chairs"}


def test_a_class_with_a_table_of_its_own_is_written_as_without_a_watch(engine: Engine) -> None:
    """SQLAlchemy has no history of what it inherits, so that nobody can ask whether it was modified."""
    compare = Compare({Tree: ["tree:{id}"]}, lambda connection: iter(()))
    purged, _ = compare(engine, lambda session: _set(session, Tree, 2, name="oak"))
    assert purged == {"tree:2"}
    with Session(engine) as session:
        assert session.get_one(Tree, 2).name == "oak"


@pytest.mark.parametrize(
    "statement", [update(others).values(y=3), insert(others).values(id=9, half_id=1), others.delete()]
)
def test_a_statement_on_a_part_of_a_join_is_refused(engine: Engine, statement: Any) -> None:
    """The table has no class of its own; which rows of the class on the join it changes, nobody looks up."""
    compare = Compare({Both: ["both:{id}"]}, lambda connection: iter(()))
    with pytest.raises(UnknownRows, match="Both"):
        compare(engine, lambda session: session.execute(statement))
    wide = Compare({Both: ["both:{id}"]}, lambda connection: iter(()), wide={Both: "boths"})
    purged, _ = wide(engine, lambda session: session.execute(statement))
    assert "boths" in purged
