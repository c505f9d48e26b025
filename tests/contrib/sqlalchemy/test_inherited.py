"""Rows in several tables, by joined inheritance: a watched session writes what another writes, and purges their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Own(DeclarativeBase):
    pass


class Doc(Own):
    __tablename__ = "doc"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "doc"}  # noqa: RUF012


class Book(Doc):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(ForeignKey("doc.id"), primary_key=True)
    size: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012


class Atlas(Book):
    """It has three rows."""

    __tablename__ = "atlas"
    id: Mapped[int] = mapped_column(ForeignKey("book.id"), primary_key=True)
    size_of_maps: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "atlas"}  # noqa: RUF012


class Note(Doc):
    """Its key is an attribute of its own, under another name."""

    __tablename__ = "note"
    note_id: Mapped[int] = mapped_column(ForeignKey("doc.id"), primary_key=True)
    size: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "note"}  # noqa: RUF012


class Memo(Note):
    """Each of its three keys has a name of its own, and the column another one."""

    __tablename__ = "memo"
    memo_id: Mapped[int] = mapped_column("memo_key", ForeignKey("note.note_id"), primary_key=True)
    length: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "memo"}  # noqa: RUF012


CLASSES: dict[str, Any] = {cls.__name__: cls for cls in (Book, Atlas, Note, Memo)}
BY_KEY: dict[Any, Any] = {Doc: ["doc:{id}"]}
BY_VALUE: dict[Any, Any] = {Doc: ["doc:{id}", "name:{name}"]}
Work = Callable[[Session, Any, Any], Any]
WAYS: dict[str, Work] = {
    "insert": lambda s, cls, rows: s.execute(insert(cls), rows),
    "insert of one": lambda s, cls, rows: s.execute(insert(cls), rows[0]),
    "insert with values": lambda s, cls, rows: s.execute(insert(cls).values(name="c"), [{"size": 1} for _ in rows]),
    "bulk_insert_mappings": lambda s, cls, rows: s.bulk_insert_mappings(cls, rows),
    "bulk_save_objects": lambda s, cls, rows: s.bulk_save_objects([cls(**row) for row in rows]),
    "add": lambda s, cls, rows: s.add_all([cls(**row) for row in rows]),
}


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    """Two databases alike, each with one row that is there before."""
    both = create_engine(f"sqlite:///{tmp_path}/one.db"), create_engine(f"sqlite:///{tmp_path}/other.db")
    for engine in both:
        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Doc(id=5))
            session.commit()
    yield both
    for engine in both:
        engine.dispose()


def _rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return [connection.execute(select(table)).all() for table in Own.metadata.sorted_tables]


@pytest.mark.parametrize("tags", [BY_KEY, BY_VALUE], ids=["by key", "by value"])
@pytest.mark.parametrize("kind", list(CLASSES))
@pytest.mark.parametrize("way", list(WAYS))
def test_new_rows_are_written_as_without_a_watch_and_purged(
    engines: tuple[Engine, Engine], way: str, kind: str, tags: Any
) -> None:
    """By whichever way they are written, twice with the same parameters, which stay as the app has made them."""
    cache, watched = HTTPCache(), sessionmaker(engines[0])
    collector = collect_changes(watched, cache, tags)
    given = [{"name": "a"}, {"name": "b"}]
    with capture_invalidations(cache) as receipts:
        for sessions in (watched, sessionmaker(engines[1])):
            for _ in range(2):
                with sessions.begin() as session:
                    WAYS[way](session, CLASSES[kind], given)
    collector.stop()
    assert given == [{"name": "a"}, {"name": "b"}]
    assert _rows(engines[0]) == _rows(engines[1])
    purged = set().union(*tags_of(receipts))
    docs = [doc for doc in _rows(engines[0])[0] if doc.id != 5]
    assert docs
    assert purged >= {f"doc:{doc.id}" for doc in docs}
    if tags is BY_VALUE:
        assert purged >= {f"name:{doc.name}" for doc in docs}
    assert "doc:5" not in purged
    assert not any(receipt.everything for receipt in receipts)


def test_objects_saved_in_bulk_are_as_new_as_without_a_watch(engines: tuple[Engine, Engine]) -> None:
    """They are inserted once more by a second call; asked for, their keys stay."""
    sessions = sessionmaker(engines[0])
    collector = collect_changes(sessions, HTTPCache(), BY_VALUE)
    with sessions.begin() as session:
        book = Book(name="a")
        session.bulk_save_objects([book])
        assert "id" not in vars(book)
        session.bulk_save_objects([book])
        session.bulk_save_objects([book], return_defaults=True)
        assert book.id == 8
    collector.stop()
    assert [doc.id for doc in _rows(engines[0])[0]] == [5, 6, 7, 8]
