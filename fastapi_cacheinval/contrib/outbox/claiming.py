"""Taking rows of the outbox for oneself: on PostgreSQL by their locks, on SQLite by the lock of a file beside it."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import Executable, LargeBinary, bindparam, cast, delete, func, select, type_coerce, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.outbox.table import Outbox
from fastapi_cacheinval.contrib.outbox.whole import whole

__all__ = ["MOST_COUNTED", "Claim", "Claims", "claims"]

MOST_COUNTED = 10_000

_IN_MEMORY = "The relay needs an SQLite database in a file: all that is in memory shares one connection."


class Claim:
    """Rows that no other relay takes until `let_go`.

    `waiting` is how many rows there are, up to 10,000, where none or as many as may be could be taken, else just those.
    """

    def __init__(
        self,
        claims: Claims,
        rows: Sequence[Sequence[Any]],
        waiting: int,
        held: AsyncExitStack,
        connection: AsyncConnection | None = None,
    ) -> None:
        self.rows = rows
        self.waiting = waiting
        self._claims = claims
        self._held = held
        # The one whose transaction has the locks.
        self._connection = connection

    async def let_go(self) -> None:
        """Let others take them too, and hold nothing of the database while they are seen through."""
        self._connection = None
        await whole(self._held.aclose())

    async def settle(self, done: Sequence[int], *, aside: Sequence[int] = ()) -> None:
        """Delete what is done, set aside what could not be read, and commit."""
        if done or aside:
            await whole(self._settle(done, aside))

    async def _settle(self, done: Sequence[int], aside: Sequence[int]) -> None:
        if self._connection is not None:
            await self._write(self._connection, done, aside)
            await self._connection.commit()
        else:
            async with self._claims.engine.begin() as connection:
                await self._write(connection, done, aside)

    async def _write(self, connection: AsyncConnection, done: Sequence[int], aside: Sequence[int]) -> None:
        table = self._claims.outbox.table
        if done:
            await connection.execute(delete(table).where(table.c.id.in_(done)))
        if aside:
            await connection.execute(update(table).where(table.c.id.in_(aside)).values(refused=True))


class Claims(ABC):
    """How rows are taken, at most `batch` at a time, in the order of their numbers."""

    def __init__(self, engine: AsyncEngine, outbox: Outbox, batch: int) -> None:
        self.engine = engine
        self.outbox = outbox
        self._batch = batch
        table = outbox.table
        waits = table.c.refused.is_(False)
        some = select(table.c.id).where(waits).limit(MOST_COUNTED).subquery()
        self._count: Executable = select(func.count()).select_from(some)
        self._rows: Any = select(*self._columns()).where(waits).order_by(table.c.id).limit(batch)

    def _columns(self) -> list[Any]:
        table = self.outbox.table
        return [table.c.id, table.c.tags, table.c.soft, table.c.everything, table.c.trace]

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[None]:
        """What is needed all the time."""
        yield

    @asynccontextmanager
    async def claim(self, leave_out: Collection[int] = ()) -> AsyncGenerator[Claim | None]:
        """The first rows that are free but for those with these numbers; let go of at the end.

        None where others have to end first.
        """
        rows = self._rows
        if leave_out:
            rows = rows.where(self.outbox.table.c.id.not_in(bindparam("out", list(leave_out), literal_execute=True)))
        taking = asyncio.get_running_loop().create_task(self._take(rows))
        try:
            claim = await whole(taking)
        except asyncio.CancelledError:
            if taking.done() and not taking.cancelled() and not taking.exception():
                taken = taking.result()
                if taken is not None:
                    await taken.let_go()
            raise
        try:
            yield claim
        finally:
            if claim is not None:
                await claim.let_go()

    @abstractmethod
    async def _take(self, query: Any) -> Claim | None: ...

    async def waiting(self) -> int:
        """How many rows there are, up to 10,000."""
        return await whole(self._waiting())

    async def _waiting(self) -> int:
        async with self.engine.connect() as connection:
            return await self._counted(connection)

    async def _waiting_beside(self, rows: Sequence[object], connection: AsyncConnection) -> int:
        """Counted where that tells more than the rows do; not where a purge would wait for it."""
        return len(rows) if 0 < len(rows) < self._batch else await self._counted(connection)

    async def _counted(self, connection: AsyncConnection) -> int:
        return int((await connection.execute(self._count)).scalar_one())


class _PostgreSQL(Claims):
    async def _take(self, query: Any) -> Claim:
        async with AsyncExitStack() as held:
            connection = await held.enter_async_context(self.engine.connect())
            # Under a stricter level, rows that another relay has deleted meanwhile would be errors.
            connection = await connection.execution_options(isolation_level="READ COMMITTED")
            rows = (await connection.execute(query.with_for_update(skip_locked=True))).all()
            waiting = await self._waiting_beside(rows, connection)
            return Claim(self, rows, waiting, held.pop_all(), connection)


class _SQLite(Claims):
    """One relay at a time, by an exclusive lock of an empty file beside the database.

    The database itself is never locked for longer than it takes to delete rows, and the lock of a process that dies is
    free at once.
    """

    _lock: AsyncConnection

    def _columns(self) -> list[Any]:
        table = self.outbox.table
        # As bytes and without conversion: text that is no UTF-8 and booleans that are none must not end the reading.
        as_bytes = [cast(column, LargeBinary) for column in (table.c.tags, table.c.trace)]
        as_is = [type_coerce(column, NullType()) for column in (table.c.soft, table.c.everything)]
        return [table.c.id, as_bytes[0], *as_is, as_bytes[1]]

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[None]:
        file = await whole(self._file())
        if not file:
            raise ConfigurationError(_IN_MEMORY)
        url = self.engine.url.set(database=f"{file}-{self.outbox.table.name}.lock", query={})
        locks = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"timeout": 0})
        self._lock = locks.connect()
        try:
            # Not torn either: a connection that is given up half-open is closed by nobody.
            await whole(_begun(self._lock))
            yield
        finally:
            if self._lock.sync_connection is not None:
                await whole(self._lock.close())

    async def _file(self) -> str:
        async with self.engine.connect() as connection:
            listed = (await connection.exec_driver_sql("PRAGMA database_list")).mappings().all()
        return next((each["file"] for each in listed if each["name"] == "main"), "")

    async def _take(self, query: Any) -> Claim | None:
        try:
            await self._lock.exec_driver_sql("BEGIN EXCLUSIVE")
        except OperationalError as error:
            if "locked" not in str(error.orig):
                raise
            return None
        async with AsyncExitStack() as held:
            held.push_async_callback(self._unlock)
            async with self.engine.connect() as connection:
                rows = (await connection.execute(query)).all()
                waiting = await self._waiting_beside(rows, connection)
            return Claim(self, rows, waiting, held.pop_all())

    async def _unlock(self) -> None:
        with contextlib.suppress(OperationalError):
            await self._lock.exec_driver_sql("ROLLBACK")


async def _begun(connection: AsyncConnection) -> None:
    await connection.start()


def claims(engine: AsyncEngine, outbox: Outbox, batch: int) -> Claims:
    """How rows are taken on the engine's database; raises `ConfigurationError` for one that is not supported."""
    match engine.dialect.name:
        case "postgresql":
            return _PostgreSQL(engine, outbox, batch)
        case "sqlite":
            if engine.url.database in (None, "", ":memory:"):
                raise ConfigurationError(_IN_MEMORY)
            return _SQLite(engine, outbox, batch)
        case other:
            raise ConfigurationError(f"The relay works on PostgreSQL and on SQLite, not on {other}.")
