"""The database: an SQLite file, a session per request, and a count of the SQL statements run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from example_app.models import Base


class Database:
    """An SQLite file: the one that EXAMPLE_DB names, else one in a temporary directory that ends with the app."""

    def __init__(self) -> None:
        self.queries = 0
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._engine: AsyncEngine | None = None
        self._sessions: async_sessionmaker[AsyncSession] | None = None

    async def open(self) -> None:
        """Connect and create the tables that are missing."""
        path = os.environ.get("EXAMPLE_DB")
        if not path:
            self._directory = tempfile.TemporaryDirectory(prefix="showroom-")
            path = str(Path(self._directory.name, "showroom.db"))
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        async with self._engine.begin() as connection:
            # Readers and a writer side by side, as a real shop has them.
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            await connection.run_sync(Base.metadata.create_all)
        event.listen(self._engine.sync_engine, "before_cursor_execute", self._count)

    async def close(self) -> None:
        """Disconnect, and remove the file if it was temporary."""
        if self._engine is not None:
            await self._engine.dispose()
        if self._directory is not None:
            self._directory.cleanup()
        self._engine = self._sessions = self._directory = None

    def session(self) -> AsyncSession:
        """Return a new session; it takes a connection when first used."""
        if self._sessions is None:
            raise RuntimeError("the database is not open")
        return self._sessions()

    def _count(self, *_: object) -> None:
        self.queries += 1


database = Database()


async def get_session() -> AsyncIterator[AsyncSession]:
    """A session that commits when the request went well and rolls back when it did not."""
    async with database.session() as session:
        yield session
        await session.commit()


Session = Annotated[AsyncSession, Depends(get_session)]
"""Commits after the response was sent; the cache holds a mutation's response until then."""

PromptSession = Annotated[AsyncSession, Depends(get_session, scope="function")]
"""Commits when the handler returns, before the response: recommended for mutations."""
