"""Collected at flush, purged after the commit; what is rolled back takes its tags along."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import Label, Product, Store, tags_of


def touch(session: Session, number: int) -> None:
    """Add a label of this number."""
    session.add(Label(id=number))
    session.flush()


def test_nothing_is_purged_before_the_commit_and_all_of_it_after(store: Store) -> None:
    """However many flushes there are, there is one purge; it is made when `commit()` returns."""
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        touch(session, 11)
        touch(session, 12)
        assert receipts == []
        session.commit()
        assert tags_of(receipts) == [{"label:11", "label:12"}]


def test_a_rollback_drops_and_the_session_may_be_used_again(store: Store) -> None:
    """Each transaction stands by itself."""
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        touch(session, 11)
        session.rollback()
        touch(session, 12)
        session.commit()
        touch(session, 13)
        session.commit()
    assert tags_of(receipts) == [{"label:12"}, {"label:13"}]


def test_close_without_commit_drops(store: Store) -> None:
    """A session that is closed, or whose block ends, has rolled back."""
    with capture_invalidations(store.cache) as receipts:
        with store.sessions() as session:
            touch(session, 11)
        touch(session, 12)
        session.close()
        session.commit()
    assert receipts == []


def test_a_rolled_back_savepoint_takes_its_tags_along(store: Store) -> None:
    """What was changed around it stays."""
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        touch(session, 11)
        savepoint = session.begin_nested()
        touch(session, 12)
        savepoint.rollback()
        touch(session, 13)
    assert tags_of(receipts) == [{"label:11", "label:13"}]


def test_a_released_savepoint_purges_with_its_transaction(store: Store) -> None:
    """Its own end is no commit."""
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        with session.begin_nested():
            touch(session, 11)
        assert receipts == []
        session.commit()
        # A savepoint of SQLite is in a transaction only where something was written before it.
        touch(session, 14)
        with session.begin_nested():
            touch(session, 12)
        session.rollback()
    assert tags_of(receipts) == [{"label:11"}]


@pytest.mark.parametrize("end", ["rollback", "close", "commit"])
@pytest.mark.parametrize("inner", [False, True])
def test_a_savepoint_whose_release_is_a_commit_is_purged_whatever_comes_after_it(
    store: Store,
    inner: bool,
    end: str,
) -> None:
    """SQLite's driver begins no transaction before a savepoint: its release commits, and no rollback undoes it."""
    with store.purged() as tags, store.sessions() as session:
        with session.begin_nested():
            if inner:
                with session.begin_nested():
                    session.execute(update(Product).where(Product.id == 1).values(price=5))
            else:
                session.get_one(Product, 1).price = 5
        getattr(session, end)()
    assert tags == {"product:1", "brand:1", "products"}
    with store.sessions() as session:
        assert session.get_one(Product, 1).price == 5


def test_a_savepoint_after_a_write_is_rolled_back_with_its_transaction(store: Store) -> None:
    """There the driver has begun a transaction."""
    with store.purged() as tags, store.sessions() as session:
        touch(session, 14)
        with session.begin_nested():
            session.get_one(Product, 1).price = 5
        session.rollback()
    assert tags == set()


def test_an_outer_savepoint_that_is_rolled_back_takes_released_inner_ones_along(store: Store) -> None:
    """Nested two deep."""
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        outer = session.begin_nested()
        with session.begin_nested():
            touch(session, 11)
        session.begin_nested()
        touch(session, 12)
        outer.rollback()
        touch(session, 13)
    assert tags_of(receipts) == [{"label:13"}]


def test_a_flush_that_fails_drops_what_it_had_collected(store: Store) -> None:
    """The database refuses: nothing is committed, and nothing purged."""
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        touch(session, 11)
        session.add(Label(id=1))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.commit()
    assert receipts == []


def test_a_savepoint_survives_a_failed_flush_in_it(store: Store) -> None:
    """The usual way to try an insert."""
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        touch(session, 11)
        with pytest.raises(IntegrityError), session.begin_nested():
            touch(session, 1)
        touch(session, 12)
    assert tags_of(receipts) == [{"label:11", "label:12"}]


def test_two_sessions_at_once_do_not_mix(store: Store) -> None:
    """One commits, the other rolls back."""
    with capture_invalidations(store.cache) as receipts, store.sessions() as one, store.sessions() as two:
        touch(one, 11)
        # SQLite has one writer: the other has only read, and writes later.
        two.get(Label, 1)
        two.rollback()
        one.commit()
        touch(two, 12)
        assert tags_of(receipts) == [{"label:11"}]
        two.rollback()
        two.commit()
    assert tags_of(receipts) == [{"label:11"}]


def test_a_commit_that_fails_purges_because_nobody_knows_what_became_of_it(store: Store) -> None:
    """The connection breaks after the server has committed: the client hears an error, and the rows are there."""

    def break_after(connection: Any) -> None:
        connection.connection.dbapi_connection.commit()
        raise ConnectionResetError("gone")

    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        touch(session, 11)
        event.listen(store.engine, "commit", break_after)
        with pytest.raises(ConnectionResetError):
            session.commit()
        event.remove(store.engine, "commit", break_after)
        session.rollback()
        assert session.get(Label, 11) is not None
    assert tags_of(receipts) == [{"label:11"}]


def test_a_session_can_be_used_when_its_purge_has_raised(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction is closed before the purge is made: the error is heard, and nothing is broken."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("no way out")

    with store.sessions() as session:
        monkeypatch.setattr(type(store.cache), "invalidate_sync", broken)
        touch(session, 11)
        with pytest.raises(OSError, match="no way out"):
            session.commit()
        monkeypatch.undo()
        assert session.get(Label, 11) is not None
        touch(session, 12)
        with capture_invalidations(store.cache) as receipts:
            session.commit()
    assert tags_of(receipts) == [{"label:12"}]


def test_nothing_is_heard_after_stop(store: Store) -> None:
    """Two collectors on the same sessions are heard apart, and end apart."""
    other = HTTPCache()
    collector = collect_changes(store.sessions, other, {Label: "labels"})
    with capture_invalidations(store.cache) as receipts, capture_invalidations(other) as others:
        with store.sessions.begin() as session:
            touch(session, 11)
        collector.stop()
        with store.sessions.begin() as session:
            touch(session, 12)
    assert tags_of(receipts) == [{"label:11"}, {"label:12"}]
    assert tags_of(others) == [{"labels"}]


# -- any order ---------------------------------------------------------------------------------


class Anything(DeclarativeBase):
    pass


class Thing(Anything):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int]


STEPS = st.sampled_from(["add", "move", "delete", "flush", "begin", "release", "undo", "commit", "rollback", "close"])


class Model:
    """The rows as they would be, and the tags that each open savepoint has earned."""

    def __init__(self) -> None:
        self.committed: dict[int, int] = {}
        self.levels: list[tuple[dict[int, int], set[str]]] = [({}, set())]
        self.purged: list[set[str]] = []

    @property
    def rows(self) -> dict[int, int]:
        return self.levels[-1][0]

    def write(self, number: int, place: int | None) -> None:
        old = self.rows.get(number)
        if old == place:
            return
        tags = self.levels[-1][1]
        tags |= {f"thing:{number}"} | {f"place:{each}" for each in (old, place) if each is not None}
        if place is None:
            del self.rows[number]
        else:
            self.rows[number] = place

    def begin(self) -> None:
        self.levels.append((dict(self.rows), set()))

    def release(self) -> None:
        rows, tags = self.levels.pop()
        self.levels[-1] = (rows, self.levels[-1][1] | tags)

    def commit(self) -> None:
        while len(self.levels) > 1:
            self.release()
        rows, tags = self.levels[0]
        self.committed = dict(rows)
        if tags:
            self.purged.append(tags)
        self.levels = [(rows, set())]

    def rollback(self) -> None:
        self.levels = [(dict(self.committed), set())]


def _begin_by_hand(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _leave_begin_to_us(connection: Any, _: object) -> None:
    connection.isolation_level = None


class Walk:
    """The same steps for a session that is watched and for the model."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://")
        # SQLAlchemy's recipe for real savepoints, which SQLite's driver alone does not keep.
        event.listen(self.engine, "connect", _leave_begin_to_us)
        event.listen(self.engine, "begin", _begin_by_hand)
        Anything.metadata.create_all(self.engine)
        self.cache = HTTPCache()
        self.sessions = sessionmaker(self.engine)
        collect_changes(self.sessions, self.cache, {Thing: ["thing:{id}", "place:{place}"]})
        self.session = self.sessions()
        self.model = Model()
        self.numbers = itertools.count(1)

    def step(self, step: str, pick: int) -> None:
        model, session = self.model, self.session
        known = sorted(model.rows)
        chosen = known[pick % len(known)] if known else None
        match step:
            case "add":
                number = next(self.numbers)
                model.write(number, pick)
                session.add(Thing(id=number, place=pick))
                session.flush()
            case "move" if chosen is not None:
                model.write(chosen, pick)
                session.get_one(Thing, chosen).place = pick
                session.flush()
            case "delete" if chosen is not None:
                model.write(chosen, None)
                session.delete(session.get_one(Thing, chosen))
                session.flush()
            case "flush":
                session.flush()
            case "begin":
                model.begin()
                session.begin_nested()
            case "release" if len(model.levels) > 1:
                model.release()
                session.get_nested_transaction().commit()  # type: ignore[union-attr]
            case "undo" if len(model.levels) > 1:
                model.levels.pop()
                session.get_nested_transaction().rollback()  # type: ignore[union-attr]
            case "commit":
                model.commit()
                session.commit()
            case "rollback":
                model.rollback()
                session.rollback()
            case "close":
                model.rollback()
                session.close()


@settings(max_examples=300)
@given(st.lists(st.tuples(STEPS, st.integers(0, 3)), max_size=40))
def test_any_order_of_steps_purges_exactly_what_was_committed(steps: list[tuple[str, int]]) -> None:
    """Against a model of rows and savepoints: each commit purges old and new tags of what it wrote, and nothing else."""
    walk = Walk()
    with capture_invalidations(walk.cache) as receipts:
        for step, pick in steps:
            walk.step(step, pick)
        walk.step("commit", 0)
    walk.session.close()
    walk.engine.dispose()
    assert tags_of(receipts) == walk.model.purged
