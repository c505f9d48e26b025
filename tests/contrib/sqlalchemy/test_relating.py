"""Association rows that a flush writes for a relationship are rows of the classes on them, and take others along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, ForeignKey, Integer, Table, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows
from tests.contrib.sqlalchemy.compared import Compare, Work
from tests.contrib.sqlalchemy.store import obedient


class Own(DeclarativeBase):
    pass


class Team(Own):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    members: Mapped[list[Person]] = relationship(secondary="membership", back_populates="teams")


class Membership(Own):
    """The class of the association rows, which have a key and a value of their own."""

    __tablename__ = "membership"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    team_id: Mapped[int] = mapped_column(ForeignKey("team.id"))
    role: Mapped[str] = mapped_column(server_default="new")


class Badge(Own):
    """It goes with its membership."""

    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    membership_id: Mapped[int] = mapped_column(ForeignKey("membership.id", ondelete="CASCADE"))


borrowed = Table(
    "borrowed",
    Own.metadata,
    Column("id", Integer, primary_key=True),
    Column("person_id", ForeignKey("person.id")),
    Column("book_id", ForeignKey("book.id")),
)


class Reminder(Own):
    """It goes with an association row that is of no class."""

    __tablename__ = "reminder"
    id: Mapped[int] = mapped_column(primary_key=True)
    borrowed_id: Mapped[int] = mapped_column(ForeignKey("borrowed.id", ondelete="CASCADE"))


class Book(Own):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)


class Friendship(Own):
    """People know people."""

    __tablename__ = "friendship"
    one: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    other: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)


class Person(Own):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="person")
    teams: Mapped[list[Team]] = relationship(secondary="membership", back_populates="members")
    books: Mapped[list[Book]] = relationship(secondary=borrowed)
    friends: Mapped[list[Person]] = relationship(
        secondary="friendship",
        primaryjoin="Person.id == Friendship.one",
        secondaryjoin="Person.id == Friendship.other",
        back_populates="friend_of",
    )
    friend_of: Mapped[list[Person]] = relationship(
        secondary="friendship",
        primaryjoin="Person.id == Friendship.other",
        secondaryjoin="Person.id == Friendship.one",
        back_populates="friends",
    )
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012


class Player(Person):
    __tablename__ = "player"
    player_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "player"}  # noqa: RUF012


class Slip(Own):
    """It goes with a row of a table that no class is mapped to, and that no relationship knows."""

    __tablename__ = "slip"
    id: Mapped[int] = mapped_column(primary_key=True)
    drawer_id: Mapped[int] = mapped_column(ForeignKey("drawer.id", ondelete="CASCADE"))


drawer = Table("drawer", Own.metadata, Column("id", Integer, primary_key=True))

TAGS: dict[Any, Any] = {
    Team: ["team:{id}"],
    Membership: ["membership:{id}", "role:{role}"],
    Badge: ["badge:{id}"],
    Reminder: ["reminder:{id}"],
    Book: ["book:{id}"],
    Friendship: ["friendship:{one}-{other}"],
    Person: ["person:{id}"],
    Slip: ["slip:{id}"],
}
LINKS = {"membership": ("person_id", "team_id"), "borrowed": ("person_id", "book_id"), "friendship": ("one", "other")}
SIDES = {"person_id": "person", "team_id": "team", "book_id": "book", "one": "person", "other": "person"}


def _rows(connection: Connection) -> Iterator[tuple[str, Any]]:
    """Each row of a class with tags, and for each association row both sides of it."""
    for name, table in Own.metadata.tables.items():
        for row in connection.execute(select(table)):
            for side in LINKS.get(name, ()):
                yield f"{SIDES[side]}:{row._mapping[side]}", (name, tuple(row))
            if name == "friendship":
                yield f"friendship:{row.one}-{row.other}", tuple(row)
            elif name == "player":
                yield f"person:{row.player_id}", tuple(row)
            elif name not in ("borrowed", "drawer"):
                yield f"{name}:{row.id}", tuple(row)
            if name == "membership":
                yield f"role:{row.role}", tuple(row)


compare = Compare(TAGS, _rows)


@pytest.fixture
def club(tmp_path: Path) -> Iterator[Engine]:
    engine = obedient(tmp_path / "club.db")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Team(id=1), Team(id=2), Book(id=1), Book(id=2), Person(id=1), Player(id=2), Person(id=3)])
        session.flush()
        session.add_all([Membership(id=1, person_id=1, team_id=1, role="boss"), Friendship(one=1, other=2)])
        session.add_all([Membership(id=2, person_id=2, team_id=1), Friendship(one=2, other=1)])
        session.execute(insert(borrowed), [{"person_id": 1, "book_id": 1}, {"person_id": 2, "book_id": 1}])
        session.execute(insert(drawer), [{"id": 1}, {"id": 2}])
        session.flush()
        session.add_all([Badge(id=1, membership_id=1), Badge(id=2, membership_id=2)])
        session.add_all([Reminder(id=1, borrowed_id=1), Reminder(id=2, borrowed_id=2)])
        session.add_all([Slip(id=1, drawer_id=1), Slip(id=2, drawer_id=2)])
        session.commit()
    yield engine
    engine.dispose()


def _in_savepoints(session: Session) -> None:
    person = session.get_one(Person, 1)
    with session.begin_nested():
        person.teams.clear()
    with session.begin_nested() as undone:
        person.books.clear()
        session.flush()
        undone.rollback()
    person.teams.append(session.get_one(Team, 2))


def _delete_reader(session: Session) -> None:
    session.execute(delete(Membership))
    session.execute(delete(Friendship))
    session.delete(session.get_one(Person, 1))


def _new_with_new(session: Session) -> None:
    """Nothing of it has a key before the flush."""
    session.add(Player(teams=[Team(), session.get_one(Team, 1)], friends=[Person(), session.get_one(Person, 1)]))


FLUSHES: dict[str, Work] = {
    "append": lambda s: s.get_one(Person, 1).teams.append(s.get_one(Team, 2)),
    "append from the other side": lambda s: s.get_one(Team, 2).members.append(s.get_one(Person, 2)),
    "append of a subclass": lambda s: s.get_one(Player, 2).teams.append(s.get_one(Team, 2)),
    "clear": lambda s: s.get_one(Person, 1).teams.clear(),
    "clear from the other side": lambda s: s.get_one(Team, 1).members.clear(),
    "clear of a subclass": lambda s: s.get_one(Player, 2).teams.clear(),
    "replace": lambda s: setattr(s.get_one(Person, 1), "teams", [s.get_one(Team, 2)]),
    "new objects": lambda s: s.add(Person(id=9, teams=[s.get_one(Team, 1), Team(id=9)])),
    "new objects without keys": _new_with_new,
    "merge": lambda s: s.merge(Person(id=1, teams=[Team(id=2)])),
    "delete": lambda s: s.delete(s.get_one(Team, 1)),
    "in savepoints": _in_savepoints,
    "of one class with itself": lambda s: s.get_one(Person, 3).friends.append(s.get_one(Person, 1)),
    "of one class with itself, from the other side": lambda s: s.get_one(Person, 1).friend_of.clear(),
    "no class on the association rows": lambda s: s.get_one(Person, 1).books.clear(),
    "delete without a class on the association rows": _delete_reader,
}
STATEMENTS: dict[str, Work] = {
    "association rows": lambda s: s.execute(delete(borrowed).where(borrowed.c.person_id == 1)),
    "every association row": lambda s: s.execute(delete(borrowed)),
    "association rows by a condition over others": lambda s: s.execute(
        delete(borrowed).where(borrowed.c.book_id.in_(select(Book.id)))
    ),
    "rows of no class": lambda s: s.execute(delete(drawer).where(drawer.c.id == 2)),
}


@pytest.mark.parametrize("kind", list(FLUSHES))
def test_a_changed_relationship_purges_every_row_that_differs(club: Engine, kind: str) -> None:
    """The class of the association table, its two sides, and what goes with an association row."""
    purged, changed = compare(club, FLUSHES[kind])
    assert changed
    assert not changed - purged


@pytest.mark.parametrize("kind", list(STATEMENTS))
def test_a_delete_on_a_table_of_no_class_purges_what_goes_along(club: Engine, kind: str) -> None:
    """The rows of classes that the database deletes with its rows, and both sides of association rows."""
    purged, changed = compare(club, STATEMENTS[kind])
    assert changed
    assert not changed - purged


def test_a_relationship_that_stays_is_left_alone(club: Engine) -> None:
    """A new link purges its own association row, and none of the others."""
    purged, _ = compare(club, FLUSHES["append"])
    assert purged == {"person:1", "team:2", "membership:3", "role:new"}


def test_rows_of_no_class_that_cannot_be_told_need_wide_tags_of_what_goes_along(club: Engine) -> None:
    """A statement that replaces rows deletes others besides."""
    replace = insert(drawer).values(id=1).prefix_with("OR REPLACE")
    with pytest.raises(UnknownRows, match="Slip"):
        compare(club, lambda session: session.execute(replace))
    purged, changed = Compare(TAGS, _rows, wide={Slip: "slips"})(club, lambda session: session.execute(replace))
    assert changed == {"slip:1"}
    assert purged == {"slips"}
