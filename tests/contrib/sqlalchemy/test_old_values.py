"""On SQLite, what a row was is known right before the app writes it, whoever else writes at the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.racing import MODES, TAGS, WORKS, Mover, load, make_file, prepare


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WORKS)
def test_the_value_that_somebody_has_set_right_before_a_write_is_purged(tmp_path: Path, name: str, mode: str) -> None:
    """Somebody tries to change the row before each statement that `pysqlite` sends, up to the app's own write."""
    work, table, column = WORKS[name]
    file = make_file(tmp_path, mode)
    engine = create_engine(f"sqlite:///{file}")
    prepare(engine, mode)
    sessions, cache, mover = (
        sessionmaker(engine, expire_on_commit=False),
        HTTPCache(enabled=False),
        Mover(file, table, column),
    )
    collector = collect_changes(sessions, cache, TAGS)
    try:
        with capture_invalidations(cache) as receipts, sessions() as session:
            load(session)
            event.listen(engine, "before_cursor_execute", mover)
            work(session)
            session.commit()
    finally:
        collector.stop()
        engine.dispose()
        mover.connection.close()
    _check(mover, {tag for each in receipts for tag in each.tags})
    assert not any(each.everything for each in receipts)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("name", WORKS)
async def test_the_value_that_somebody_has_set_is_purged_with_aiosqlite(tmp_path: Path, name: str, mode: str) -> None:
    """The same, with `aiosqlite`."""
    work, table, column = WORKS[name]
    file = make_file(tmp_path, mode)
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    prepare(engine.sync_engine, mode)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    cache, mover = HTTPCache(enabled=False), Mover(file, table, column)
    collector = collect_changes(sessions, cache, TAGS)

    def run(session: Session) -> None:
        load(session)
        event.listen(engine.sync_engine, "before_cursor_execute", mover)
        work(session)
        session.commit()

    try:
        with capture_invalidations(cache) as receipts:
            async with sessions() as session:
                await session.run_sync(run)
    finally:
        collector.stop()
        await engine.dispose()
        mover.connection.close()
    _check(mover, {tag for each in receipts for tag in each.tags})


def _check(mover: Mover, tags: set[str]) -> None:
    assert mover.ended
    assert mover.moved > 0
    assert f"was:{mover.moved}" in tags
