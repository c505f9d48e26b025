"""Rows of an SQLite file, and somebody else who changes one of them whenever the file lets him."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

__all__ = ["MODES", "TAGS", "WORKS", "Item", "Member", "Mover", "Team", "load", "make_file", "prepare"]


class Base(DeclarativeBase):
    pass


hung = Table(
    "hung",
    Base.metadata,
    Column("item_id", ForeignKey("item.id", ondelete="CASCADE"), primary_key=True),
    Column("label_id", ForeignKey("label.id"), primary_key=True),
    Column("since", String),
)


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    brand: Mapped[str]
    labels: Mapped[list[Label]] = relationship(secondary=hung)
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Part(Base):
    """The database deletes it with its item."""

    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id", ondelete="CASCADE"))
    name: Mapped[str]


class Label(Base):
    __tablename__ = "label"
    id: Mapped[int] = mapped_column(primary_key=True)


class Hung(Base):
    __table__ = hung


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    members: Mapped[list[Member]] = relationship(post_update=True)


class Member(Base):
    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))


class Seen(Base):
    """A view, which a trigger writes."""

    __tablename__ = "seen"
    id: Mapped[int] = mapped_column(primary_key=True)
    brand: Mapped[str]


class Doc(Base):
    """A virtual table."""

    __tablename__ = "doc"
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]


TAGS: dict[Any, Any] = {
    Item: ["item:{id}", "was:{brand}"],
    Part: ["part:{id}", "was:{name}"],
    Hung: ["was:{since}"],
    Member: ["was:{team_id}"],
    Seen: ["was:{brand}"],
    Doc: ["was:{body}"],
}
_ROWS = """
    DROP TABLE seen; DROP TABLE doc;
    CREATE VIEW seen AS SELECT id, brand FROM item;
    CREATE TRIGGER write_seen INSTEAD OF UPDATE OF brand ON seen BEGIN
        UPDATE item SET brand = new.brand WHERE id = old.id; END;
    CREATE VIRTUAL TABLE doc USING fts5 (id, body);
    INSERT INTO doc VALUES ('1', '0');
    INSERT INTO item VALUES (1, '0'), (2, '0');
    INSERT INTO part VALUES (1, 1, '0');
    INSERT INTO label VALUES (1);
    INSERT INTO hung VALUES (1, 1, '0');
    INSERT INTO team VALUES (1), (2);
    INSERT INTO member VALUES (1, 1);
"""
MODES = ["as it comes", "WAL", "BEGIN", *(["autocommit=False"] if sys.version_info >= (3, 12) else [])]


def make_file(folder: Path, mode: str) -> Path:
    """A file with the tables and their rows."""
    file = folder / "items.db"
    engine = create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    engine.dispose()
    connection = sqlite3.connect(file)
    connection.executescript(_ROWS)
    if mode == "WAL":
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return file


def prepare(engine: Engine, mode: str) -> None:
    """Have connections mind foreign keys, wait for nobody, and begin transactions in this mode."""

    def connect(connection: Any, _: object) -> None:
        connection.execute("PRAGMA busy_timeout=0")
        connection.execute("PRAGMA foreign_keys=ON")
        if mode == "BEGIN":
            connection.isolation_level = None

    event.listen(engine, "connect", connect)
    if mode == "BEGIN":
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))


@dataclass
class Mover:
    """Sets a column of one row to a new number before each statement of an engine, up to the write of the app."""

    file: Path
    table: str
    column: str
    moved: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.connection = sqlite3.connect(self.file, timeout=0, isolation_level=None, check_same_thread=False)

    def __call__(self, _: object, __: object, statement: str, *___: object) -> None:
        if not self.ended:
            try:
                value, first = self.moved + 1, f"rowid = (SELECT min(rowid) FROM {self.table})"
                self.connection.execute(f"UPDATE {self.table} SET {self.column} = {value} WHERE {first}")
                self.moved += 1
            except sqlite3.OperationalError as error:
                assert "locked" in str(error)  # noqa: PT017
        self.ended = self.ended or _is_write(statement)


def _is_write(statement: str) -> bool:
    """Whether a statement is a write of the app, which one of no rows is not."""
    return statement.split(maxsplit=1)[0] in ("UPDATE", "DELETE", "INSERT") and "0 = 1" not in statement


def _unlink(session: Session) -> None:
    session.get_one(Item, 1).labels.clear()


def _set_brand(session: Session) -> None:
    session.get_one(Item, 1).brand = "new"


def _in_savepoint(session: Session) -> None:
    with session.begin_nested():
        _set_brand(session)


def _save(session: Session) -> None:
    item = session.get_one(Item, 1)
    item.brand = "new"
    session.bulk_save_objects([item])


_BRAND = update(Item).where(Item.id == 1).values(brand="new")
_ITEMS: Any = Item.__table__
_SEVERAL: Any = update(_ITEMS).where(_ITEMS.c.id == bindparam("key")).values(brand="new")
_SEEN: Any = Seen.__table__
# What is said of one row's UPDATE is not true of a view: SQLite returns no rows that its trigger has written.
_VIEW: Any = update(_SEEN).where(_SEEN.c.id == bindparam("key")).values(brand="new")
_TRANSLATED = {"schema_translate_map": {None: "main"}}

# What the app writes, and what of that somebody else changes.
WORKS: dict[str, tuple[Callable[[Session], Any], str, str]] = {
    "update": (lambda session: session.execute(_BRAND), "item", "brand"),
    "update in another schema": (
        lambda session: session.execute(_BRAND, execution_options=_TRANSLATED),
        "item",
        "brand",
    ),
    "update of several sets": (lambda session: session.execute(_SEVERAL, [{"key": 1}, {"key": 2}]), "item", "brand"),
    "update by keys": (lambda session: session.execute(update(Item), [{"id": 1, "brand": "new"}]), "item", "brand"),
    "update of a view": (
        lambda session: session.execute(_VIEW, [{"key": 1}, {"key": 2}]),
        "item",
        "brand",
    ),
    "update of a virtual table": (
        lambda session: session.execute(update(Doc).where(Doc.id == "1").values(body="new")),
        "doc",
        "body",
    ),
    "delete": (lambda session: session.execute(delete(Item).where(Item.id == 1)), "item", "brand"),
    "delete along": (lambda session: session.execute(delete(Item).where(Item.id == 1)), "part", "name"),
    "a changed attribute": (_set_brand, "item", "brand"),
    "a savepoint": (_in_savepoint, "item", "brand"),
    "a deleted object": (lambda session: session.delete(session.get_one(Item, 1)), "item", "brand"),
    "a deleted object's parts": (lambda session: session.delete(session.get_one(Item, 1)), "part", "name"),
    "a deleted object's links": (lambda session: session.delete(session.get_one(Item, 1)), "hung", "since"),
    "the end of links": (_unlink, "hung", "since"),
    "delete of links": (lambda session: session.execute(delete(hung)), "hung", "since"),
    "post_update": (
        lambda session: session.get_one(Team, 2).members.append(session.get_one(Member, 1)),
        "member",
        "team_id",
    ),
    "mappings": (
        lambda session: session.bulk_update_mappings(Item.__mapper__, [{"id": 1, "brand": "new"}]),
        "item",
        "brand",
    ),
    "saved objects": (_save, "item", "brand"),
}


def load(session: Session) -> None:
    """Have a session know the rows after its commit, where that expires nothing."""
    items, teams = session.scalars(select(Item)).all(), session.scalars(select(Team)).all()
    session.info["held"] = [*items, *teams, *(one for each in items for one in (*each.labels, *each.parts))]
    session.info["held"] += [one for each in teams for one in each.members]
    session.commit()
