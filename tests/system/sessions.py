"""A session in a thread, with a watch or without one, and when it waits for a row of another."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from tests.servers.waiting import until
from tests.system.postgresql import PostgreSQL

__all__ = ["in_a_thread", "wait_for_a_lock"]


def in_a_thread(
    engine: Engine, work: Callable[[Session], Any], tags: dict[type, Any] | None
) -> tuple[Thread, list[Exception]]:
    """A transaction that does this and is rolled back, with a watch where there are tags; its error is in the list."""
    failed: list[Exception] = []
    sessions = sessionmaker(engine)

    def run() -> None:
        collector = None if tags is None else collect_changes(sessions, HTTPCache(enabled=False), tags)
        try:
            with sessions() as session:
                work(session)
                session.flush()
        except Exception as error:  # noqa: BLE001  # told to the test
            failed.append(error)
        finally:
            if collector is not None:
                collector.stop()

    thread = Thread(target=run)
    thread.start()
    return thread, failed


def wait_for_a_lock(server: PostgreSQL, engine: Engine) -> None:
    """Return once one session of the engine's database waits for a lock."""
    query = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{engine.url.database}' AND wait_event_type = 'Lock'"
    )
    until(lambda: server.psql(query) == "1", "a session that waits")
