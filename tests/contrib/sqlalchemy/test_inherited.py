"""Rows in several tables, by joined inheritance: a watched session writes what another writes, and purges their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, insert, inspect, select
from sqlalchemy.exc import IntegrityError
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


def _shown(*objects: Any) -> list[Any]:
    """What an app sees of objects: their values, and whether SQLAlchemy takes them for rows."""
    return [({**vars(one), "_sa_instance_state": ""}, inspect(one).key) for one in objects]


def _save(session: Session, *objects: Any, **options: Any) -> list[Any]:
    session.bulk_save_objects(objects, **options)
    return _shown(*objects)


def _save_twice(session: Session, *objects: Any, **options: Any) -> list[Any]:
    return [_save(session, *objects, **options), _save(session, *objects, **options)]


def _save_after_an_error(session: Session, *objects: Any) -> list[Any]:
    with pytest.raises(IntegrityError), session.begin_nested():
        session.bulk_save_objects([*objects, Doc(id=5)])
    return [_shown(*objects), _save(session, *objects)]


def _save_apart(session: Session) -> list[Any]:
    doc = Doc(name="a")
    return _save(session, doc, Book(), doc)


def _map_twice(session: Session, **options: Any) -> list[Any]:
    row = {"kind": "doc", "name": "a"}
    session.bulk_insert_mappings(Doc.__mapper__, [row, row], **options)
    return [row]


SAVED: dict[str, tuple[Callable[[Session], list[Any]], bool]] = {
    "one table": (lambda s: _save(s, Doc(name="a"), Doc(name="b")), True),
    "one table, twice": (lambda s: _save_twice(s, Doc(name="a"), Doc(name="b")), True),
    "one table, a key of None, twice": (lambda s: _save_twice(s, Doc(id=None, name="a")), True),
    "several tables": (lambda s: _save(s, Book(name="a"), Book(), Atlas(), Note(), Memo(name="b")), True),
    "several tables, asked for": (lambda s: _save(s, Book(name="a"), Memo(), return_defaults=True), True),
    "several tables, a key of None": (lambda s: _save(s, Book(id=None, name="a"), Note(note_id=None)), True),
    "both": (lambda s: _save(s, Doc(name="a"), Memo(), Doc(), preserve_order=False), True),
    "after an error": (lambda s: _save_after_an_error(s, Doc(name="a"), Book(name="b"), Doc(name="c")), True),
    "an object that is there twice": (lambda s: _save(s, *[Doc(name="a")] * 2), False),
    "an object that is there twice, asked for": (lambda s: _save(s, *[Doc(name="a")] * 2, return_defaults=True), False),
    "an object that is there twice, apart": (_save_apart, False),
    "a mapping that is there twice": (_map_twice, True),
    "a mapping that is there twice, asked for": (lambda s: _map_twice(s, return_defaults=True), False),
}  # fmt: skip


@pytest.mark.parametrize("case", list(SAVED))
def test_objects_saved_in_bulk_are_what_they_are_without_a_watch(engines: tuple[Engine, Engine], case: str) -> None:
    """The same rows are written, and objects keep the keys that they keep without a watch, no others."""
    work, told = SAVED[case]
    cache, watched = HTTPCache(), sessionmaker(engines[0])
    collector = collect_changes(watched, cache, BY_VALUE)
    with capture_invalidations(cache) as receipts, watched.begin() as session:
        seen = work(session)
    collector.stop()
    with sessionmaker(engines[1]).begin() as session:
        assert work(session) == seen
    assert _rows(engines[0]) == _rows(engines[1])
    everything = any(receipt.everything for receipt in receipts)
    assert everything is not told
    docs = [doc for doc in _rows(engines[0])[0] if doc.id != 5]
    if told:
        assert set().union(*tags_of(receipts)) >= {f"doc:{doc.id}" for doc in docs}
