"""The database: an SQLite file that several processes may share, sessions, and a count of the SQL statements run."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from example_app.models import Base, BasketLine, Brand, Product
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import Collector, collect_changes

# What the pages that show a row are tagged with: committed changes of it purge them.
TAGS = {
    Product: ["product:{id}", "products"],
    Brand: ["brand:{id}", "products"],
    BasketLine: ["basket:{user_id}"],
}

BUSY_SECONDS = 10.0


class Database:
    """An SQLite file: the one that EXAMPLE_DB names, else one in a temporary directory that ends with the app.

    Readers and one writer at a time work side by side, in this process and in others. A transaction that is going to
    write takes the write lock when it begins, or waits for it: one that read first and wanted to write then would be
    refused whenever another process had been quicker.
    """

    def __init__(self) -> None:
        self.queries = 0
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._engine: AsyncEngine | None = None
        self._reading: async_sessionmaker[AsyncSession] | None = None
        self._writing: async_sessionmaker[AsyncSession] | None = None

    async def open(self) -> None:
        """Connect and create the tables that are missing."""
        path = os.environ.get("EXAMPLE_DB")
        if not path:
            self._directory = tempfile.TemporaryDirectory(prefix="showroom-")
            path = str(Path(self._directory.name, "showroom.db"))
        await asyncio.to_thread(_use_wal, path)
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})
        event.listen(self._engine.sync_engine, "connect", _leave_transactions_alone)
        event.listen(self._engine.sync_engine, "begin", _begin)
        writer = self._engine.execution_options(writes=True)
        self._reading = async_sessionmaker(self._engine, expire_on_commit=False)
        self._writing = async_sessionmaker(writer, expire_on_commit=False)
        async with writer.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        event.listen(self._engine.sync_engine, "before_cursor_execute", self._count)

    async def close(self) -> None:
        """Disconnect, and remove the file if it was temporary."""
        if self._engine is not None:
            await self._engine.dispose()
        if self._directory is not None:
            self._directory.cleanup()
        self._engine = self._reading = self._writing = self._directory = None

    def watch(self, cache: HTTPCache) -> Collector:
        """Have what sessions commit from now on purged; until it is stopped."""
        if self._writing is None:
            raise RuntimeError("the database is not open")
        return collect_changes(self._writing, cache, TAGS)

    def session(self, *, writes: bool = False) -> AsyncSession:
        """Return a new session; it takes a connection when first used, and then the write lock if it writes."""
        made = self._writing if writes else self._reading
        if made is None:
            raise RuntimeError("the database is not open")
        return made()

    def _count(self, _: object, __: object, statement: str, *___: object) -> None:
        self.queries += not statement.startswith("BEGIN")


def _use_wal(path: str) -> None:
    """Readers beside a writer. The file remembers it; who finds it locked by another process that sets it waits."""
    give_up = time.monotonic() + BUSY_SECONDS
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                # For this one statement SQLite does not wait by itself.
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return


def _leave_transactions_alone(connection: Any, _: object) -> None:
    """Have the driver begin none by itself: it would wait until the first write."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


database = Database()


async def get_session() -> AsyncIterator[AsyncSession]:
    """A session that reads."""
    async with database.session() as session:
        yield session


async def get_writing_session() -> AsyncIterator[AsyncSession]:
    """A session that commits when the request went well and rolls back when it did not."""
    async with database.session(writes=True) as session:
        yield session
        await session.commit()


Session = Annotated[AsyncSession, Depends(get_session)]
"""For what changes nothing."""

LateSession = Annotated[AsyncSession, Depends(get_writing_session)]
"""Commits after the response was sent; the cache holds a mutation's response until then."""

PromptSession = Annotated[AsyncSession, Depends(get_writing_session, scope="function")]
"""Commits when the handler returns, before the response: recommended for mutations."""
