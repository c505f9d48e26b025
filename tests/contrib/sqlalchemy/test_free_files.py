"""On SQLite a watched session keeps nobody waiting where it writes nothing, and is refused as the app's own write is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.racing import TAGS, WORKS, Item, Member, Team, load, make_file, prepare


def _touch(session: Session) -> None:
    item, member = session.get_one(Item, 1), session.get_one(Member, 1)
    item.brand, member.team_id = item.brand, member.team_id


def _read_in_savepoint(session: Session) -> None:
    with session.begin_nested():
        session.scalars(select(Item)).all()


def _be_refused(session: Session) -> None:
    with suppress(UnknownRows):
        session.execute(update(Item).values(id=5))


WITHOUT_A_WRITE: dict[str, Callable[[Session], Any]] = {
    "a query": lambda session: session.scalars(select(Item)).all(),
    "objects that are set to what they are": _touch,
    "keys alone": lambda session: session.execute(update(Item), [{"id": 1}]),
    "mappings of keys alone": lambda session: session.bulk_update_mappings(Item.__mapper__, [{"id": 1}]),
    "saved objects without a change": lambda session: session.bulk_save_objects([session.get_one(Item, 1)]),
    "a savepoint": _read_in_savepoint,
    "a refused statement": _be_refused,
}


@contextmanager
def _opened(file: Path, mode: str, *, watch: bool = True) -> Iterator[tuple[Session, Engine]]:
    """A session that knows the rows."""
    engine = create_engine(f"sqlite:///{file}")
    prepare(engine, mode)
    sessions = sessionmaker(engine, expire_on_commit=False)
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS) if watch else None
    try:
        with sessions() as session:
            load(session)
            yield session, engine
    finally:
        if collector is not None:
            collector.stop()
        engine.dispose()


def _is_free(file: Path) -> bool:
    other = sqlite3.connect(file, timeout=0, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        other.close()
    return True


@pytest.mark.parametrize("mode", ["as it comes", "BEGIN"])
@pytest.mark.parametrize("name", WITHOUT_A_WRITE)
def test_who_writes_nothing_keeps_nobody_waiting(tmp_path: Path, name: str, mode: str) -> None:
    """Somebody else can write while the transaction is open."""
    file = make_file(tmp_path, "WAL")
    with _opened(file, mode) as (session, _):
        WITHOUT_A_WRITE[name](session)
        session.flush()
        assert session.in_transaction() or name == "a refused statement"
        assert _is_free(file)


def test_a_change_that_a_listener_takes_back_keeps_nobody_waiting(tmp_path: Path) -> None:
    """SQLAlchemy sends no statement for it."""
    file = make_file(tmp_path, "as it comes")

    def take_back(_: object, __: object, target: Item) -> None:
        target.brand = "0"

    event.listen(Item, "before_update", take_back)
    try:
        with _opened(file, "as it comes") as (session, _):
            session.get_one(Item, 1).brand = "new"
            session.flush()
            assert _is_free(file)
    finally:
        event.remove(Item, "before_update", take_back)


def test_a_file_whose_rows_are_only_touched_stays_free(tmp_path: Path) -> None:
    """A flush that writes in one file reads the touched rows of another one."""
    files: list[Path] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(make_file(tmp_path / name, "WAL"))
    one, two = (create_engine(f"sqlite:///{file}") for file in files)
    for engine in (one, two):
        prepare(engine, "BEGIN")
    sessions = sessionmaker(binds={Item: one, Team: two, Member: two}, expire_on_commit=False)
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS)
    try:
        with sessions() as session:
            item, member = session.get_one(Item, 1), session.get_one(Member, 1)
            session.commit()
            item.brand, member.team_id = "new", member.team_id
            session.flush()
            assert [_is_free(file) for file in files] == [False, True]
    finally:
        collector.stop()
        one.dispose()
        two.dispose()


def _write(session: Session, name: str) -> None:
    WORKS[name][0](session)
    session.flush()


def _refused(file: Path, mode: str, name: str, *, watch: bool) -> tuple[Any, ...]:
    """What the app sees while somebody else writes, and what it can do after that."""
    other = sqlite3.connect(file, timeout=0, isolation_level=None)
    with _opened(file, mode, watch=watch) as (session, _):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError) as caught:
            _write(session, name)
        is_active = session.is_active
        driver: Any = session.connection().connection.driver_connection if is_active else None
        begun = driver is not None and driver.in_transaction
        other.execute("ROLLBACK")
        other.close()
        session.rollback()
        WORKS[name][0](session)
        session.commit()
        return str(caught.value.orig), is_active, begun


@pytest.mark.parametrize("mode", ["as it comes", "BEGIN"])
@pytest.mark.parametrize("name", WORKS)
def test_a_busy_file_refuses_a_look_as_it_refuses_the_write(tmp_path: Path, name: str, mode: str) -> None:
    """The app sees the same error, the session is in the same state, and the next attempt works."""
    seen: list[tuple[Any, ...]] = []
    for watch in (True, False):
        folder = tmp_path / str(watch)
        folder.mkdir()
        seen.append(_refused(make_file(folder, "WAL"), mode, name, watch=watch))
    assert seen[0] == seen[1]
    assert seen[0][0] == "database is locked"


@pytest.mark.parametrize("watch", [True, False])
def test_a_file_that_is_read_only_refuses_the_write(tmp_path: Path, *, watch: bool) -> None:
    """The error is the same without a watch."""
    file = make_file(tmp_path, "as it comes")
    with (
        _opened(Path(f"file:{file}?mode=ro&uri=true"), "as it comes", watch=watch) as (session, _),
        pytest.raises(OperationalError, match="attempt to write a readonly database"),
    ):
        session.execute(update(Item).values(brand="new"))


@pytest.mark.parametrize("watch", [True, False])
def test_sqlite_counts_the_rows_of_the_last_write_of_the_app(tmp_path: Path, *, watch: bool) -> None:
    """The write of no rows that takes the lock comes before it."""
    with _opened(make_file(tmp_path, "as it comes"), "as it comes", watch=watch) as (session, _):
        session.execute(update(Item).values(brand="new"))
        assert session.scalar(text("SELECT changes()")) == 2


def test_autocommit_holds_no_lock(tmp_path: Path) -> None:
    """A look writes nothing there, not even nothing."""
    file, cache, sent = make_file(tmp_path, "as it comes"), HTTPCache(enabled=False), list[str]()
    engine = create_engine(f"sqlite:///{file}", isolation_level="AUTOCOMMIT")
    event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    try:
        with capture_invalidations(cache) as receipts, sessions() as session:
            session.execute(update(Item).where(Item.id == 1).values(brand="new"))
            session.commit()
    finally:
        collector.stop()
        engine.dispose()
    assert {"was:0", "was:new"} <= {tag for each in receipts for tag in each.tags}
    assert not any("0 = 1" in each for each in sent)
