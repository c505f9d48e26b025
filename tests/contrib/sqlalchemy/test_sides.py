"""A row of one class may be a row of another class, or link two others: their tags are purged as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, delete, func, insert, literal, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, sessionmaker
from sqlmodel import SQLModel

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.linked import Band, Membership, Player
from tests.contrib.sqlalchemy.store import tags_of


class Own(DeclarativeBase):
    pass


class Ware(Own):
    __tablename__ = "ware"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = mapped_column(default="ware")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "ware"}  # noqa: RUF012


class Crate(Ware):
    """A ware with a second table."""

    __tablename__ = "crate"
    id: Mapped[int] = mapped_column(ForeignKey("ware.id"), primary_key=True)
    size: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_identity": "crate"}  # noqa: RUF012


class Stock(Own):
    """A light class on the table of wares."""

    __table__ = Ware.__table__  # type: ignore[assignment]


class Detail(Own):
    __tablename__ = "detail"
    ware_id: Mapped[int] = mapped_column(ForeignKey("ware.id"), primary_key=True)
    text: Mapped[str] = mapped_column(default="")


class Shown(Own):
    """A class on a join of two tables."""

    __table__ = Ware.__table__.join(Detail.__table__)  # type: ignore[assignment]
    ident = column_property(Ware.__table__.c.id, Detail.__table__.c.ware_id)


class Unit(Own):
    """A class on the second table of crates alone."""

    __table__ = Crate.__table__  # type: ignore[assignment]


SIDES: dict[Any, Any] = {Band: ["band:{id}"], Player: ["player:{id}"]}
Work = Callable[[Session], Any]


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(f"sqlite:///{tmp_path / 'sides.db'}")
    Own.metadata.create_all(engine)
    tables: list[Any] = [SQLModel.metadata.tables[name] for name in ("band", "player", "membership")]
    SQLModel.metadata.create_all(engine, tables)
    with Session(engine) as session:
        session.add_all([Band(id=1), Band(id=2), Player(id=1), Player(id=2)])
        session.add_all([Ware(id=1), Crate(id=2), Ware(id=3)])
        session.flush()
        session.add_all([Membership(band_id=1, player_id=1), Detail(ware_id=1)])
        session.commit()
    yield sessionmaker(engine)
    engine.dispose()


def purged_by(sessions: sessionmaker[Session], work: Work, tags: Any, **options: Any) -> set[str]:
    """The tags that a transaction purges."""
    cache = HTTPCache()
    collector = collect_changes(sessions, cache, tags, **options)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    found = set().union(*tags_of(receipts))
    return found | ({"everything"} if any(receipt.everything for receipt in receipts) else set())


# SQLModel's fields are columns of a class, which type checkers take for values.
LINK: Any = Membership
BAND: Any = Band
PLAYER: Any = Player
TABLE: Any = LINK.__table__
NEW: dict[str, Work] = {
    "add": lambda s: s.add(Membership(band_id=1, player_id=2)),
    "insert": lambda s: s.execute(insert(Membership).values(band_id=1, player_id=2)),
    "insert of several": lambda s: s.execute(insert(Membership), [{"band_id": 1, "player_id": 2}]),
    "insert into the table": lambda s: s.execute(insert(TABLE).values(band_id=1, player_id=2)),
    "insert from": lambda s: s.execute(
        insert(TABLE).from_select(
            ["band_id", "player_id", "since"], select(literal(1), PLAYER.id, literal(0)).where(PLAYER.id == 2)
        )
    ),
    "upsert that does nothing": lambda s: s.execute(
        upsert(Membership).values(band_id=1, player_id=2).on_conflict_do_nothing()
    ),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Membership, [{"band_id": 1, "player_id": 2}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects([Membership(band_id=1, player_id=2)]),
    "merge": lambda s: s.merge(Membership(band_id=1, player_id=2)),
}
KEY = {"band_id": 1, "player_id": 1}
OLD: dict[str, Work] = {
    "delete": lambda s: s.delete(s.get(Membership, (1, 1))),
    "a statement": lambda s: s.execute(delete(Membership).where(LINK.player_id == 1)),
    "a statement on the table": lambda s: s.execute(delete(TABLE).where(TABLE.c.player_id == 1)),
    "a query": lambda s: s.query(Membership).filter_by(band_id=1).delete(),
    "a condition over others": lambda s: s.execute(
        delete(Membership).where(LINK.band_id == select(func.min(BAND.id)).scalar_subquery())
    ),
    "a value of the link": lambda s: setattr(s.get(Membership, (1, 1)), "since", 3),
    "update": lambda s: s.execute(update(Membership).values(since=3)),
    "update by key": lambda s: s.execute(update(Membership), [{**KEY, "since": 3}]),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(Membership, [{**KEY, "since": 3}]),
}


@pytest.mark.parametrize("tags", [SIDES, {**SIDES, Membership: ["link:{band_id}/{player_id}"]}])
@pytest.mark.parametrize("kind", list(NEW))
def test_a_new_link_purges_both_sides(sessions: sessionmaker[Session], kind: str, tags: Any) -> None:
    """The class of the association table may have tags of its own, or none."""
    expected = {"band:1", "player:2"} | ({"link:1/2"} if Membership in tags else set())
    assert purged_by(sessions, NEW[kind], tags) == expected


@pytest.mark.parametrize("tags", [SIDES, {**SIDES, Membership: ["link:{band_id}/{player_id}"]}])
@pytest.mark.parametrize("kind", list(OLD))
def test_a_changed_link_purges_both_sides(sessions: sessionmaker[Session], kind: str, tags: Any) -> None:
    """It goes, or a value of it changes."""
    expected = {"band:1", "player:1"} | ({"link:1/1"} if Membership in tags else set())
    assert purged_by(sessions, OLD[kind], tags) == expected


def test_a_link_that_moves_purges_the_old_side_and_the_new_one(sessions: sessionmaker[Session]) -> None:
    """The key of the association row changes in a flush."""
    purged = purged_by(sessions, lambda s: setattr(s.get(Membership, (1, 1)), "player_id", 2), SIDES)
    assert purged == {"band:1", "player:1", "player:2"}


def test_one_side_with_tags_is_enough(sessions: sessionmaker[Session]) -> None:
    """The other side has none."""
    for work in (NEW["add"], OLD["update"], OLD["a statement"]):
        assert purged_by(sessions, work, {Band: ["band:{id}"]}) == {"band:1"}


def test_sides_are_asked_as_they_were_and_as_they_are(sessions: sessionmaker[Session]) -> None:
    """A function of a side counts its links: before the change, and after it."""
    tags = {Band: [lambda band: [f"size:{len(band.players)}"]]}
    assert purged_by(sessions, OLD["delete"], tags) == {"size:1", "size:0"}
    assert purged_by(sessions, NEW["add"], tags) >= {"size:1"}


def test_links_whose_rows_cannot_be_told_need_wide_tags_of_the_sides(sessions: sessionmaker[Session]) -> None:
    """Those of the link's own class are not enough."""
    statement = update(Membership).values(band_id=2)
    wide: dict[Any, Any] = {Membership: "links", Band: "bands"}
    with pytest.raises(UnknownRows, match="Player"):
        purged_by(sessions, lambda s: s.execute(statement), SIDES, wide=wide)
    wide[Player] = "players"
    assert purged_by(sessions, lambda s: s.execute(statement), SIDES, wide=wide) == {"links", "bands", "players"}


def test_wide_tags_of_a_link_do_not_stand_for_its_sides(sessions: sessionmaker[Session]) -> None:
    """The sides have none: their rows are looked up."""
    for work in (NEW["insert"], NEW["bulk_insert_mappings"]):
        assert purged_by(sessions, work, SIDES, wide={Membership: "links"}) >= {"band:1", "player:2"}
        purged_by(sessions, lambda s: s.execute(delete(Membership).where(LINK.player_id == 2)), SIDES)


# -- several classes on one table --------------------------------------------------------------


SHARED: dict[str, Work] = {
    "an attribute": lambda s: setattr(s.get(Stock, 1), "price", 2),
    "delete": lambda s: s.delete(s.get(Stock, 3)),
    "add": lambda s: s.add(Stock(id=9, price=1, kind="ware")),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(Stock, [{"id": 1, "price": 3}]),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Stock, [{"id": 9, "price": 3, "kind": "ware"}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects([Stock(id=9, price=1, kind="ware")]),
}
ROWS = {"an attribute": 1, "delete": 3, "bulk_update_mappings": 1}


@pytest.mark.parametrize("how", ["templates", "functions"])
@pytest.mark.parametrize("kind", list(SHARED))
def test_a_row_that_is_written_through_another_class_is_purged(
    sessions: sessionmaker[Session], kind: str, how: str
) -> None:
    """Two classes are mapped to one table, and only the other one has tags."""
    rule: Any = ["ware:{id}"] if how == "templates" else [lambda ware: [f"ware:{ware.id}"]]
    assert purged_by(sessions, SHARED[kind], {Ware: rule}) == {f"ware:{ROWS.get(kind, 9)}"}


def test_a_row_is_purged_with_the_tags_that_it_had_in_the_other_class(sessions: sessionmaker[Session]) -> None:
    """As it was, and as it is."""
    purged = purged_by(sessions, SHARED["an attribute"], {Ware: ["price:{price}"], Stock: ["stock:{id}"]})
    assert purged == {"price:0", "price:2", "stock:1"}


def test_a_row_of_a_class_on_a_join_is_purged_by_either_table(sessions: sessionmaker[Session]) -> None:
    """And a write through the join purges the classes of both tables."""
    tags: dict[Any, Any] = {Shown: ["shown:{ident}:{price}"]}
    assert purged_by(sessions, lambda s: setattr(s.get(Detail, 1), "text", "x"), tags) == {"shown:1:0"}
    assert purged_by(sessions, lambda s: setattr(s.get(Stock, 1), "price", 2), tags) == {"shown:1:0", "shown:1:2"}
    tags = {Ware: ["ware:{id}"], Detail: ["detail:{ware_id}"]}
    assert purged_by(sessions, lambda s: setattr(s.get(Shown, 1), "price", 3), tags) == {"ware:1", "detail:1"}


def test_a_class_on_the_second_table_of_another_is_seen(sessions: sessionmaker[Session]) -> None:
    """Joined inheritance: the tags of the whole row are purged."""
    purged = purged_by(sessions, lambda s: setattr(s.get(Unit, 2), "size", 5), {Ware: ["ware:{id}"]})
    assert purged == {"ware:2"}


def test_a_statement_through_another_class_is_refused_or_wide(sessions: sessionmaker[Session]) -> None:
    """Whichever of the two it names."""
    for cls in (Stock, Ware):
        with pytest.raises(UnknownRows, match="shares with another class"):
            purged_by(
                sessions,
                lambda s, cls=cls: s.execute(update(cls).values(price=4)),  # type: ignore[misc]
                {Ware: ["ware:{id}"], Stock: ["stock:{id}"]},
            )
    assert purged_by(
        sessions, lambda s: s.execute(update(Stock).values(price=4)), {Ware: ["ware:{id}"]}, wide={Ware: "wares"}
    ) >= {"wares"}
