"""The table of the outbox, and writing to it in a transaction of the caller's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Executable,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    TwoPhaseTransaction,
    bindparam,
    false,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.outbox.triggers import Dialect, Operation, Triggers, triggers_for

__all__ = ["Outbox"]

Sync = Session | scoped_session[Any] | Connection
Async = AsyncSession | async_scoped_session[Any] | AsyncConnection

# What PostgreSQL takes as the name of a channel, in bytes.
_LONGEST_CHANNEL = 63

_trace_context = TraceContextTextMapPropagator()


class Outbox:
    """The table of purges that are committed and not yet made, with what writes to it.

    `table` and `schema` name it. It stands in `metadata`, which is one of its own unless yours is given: `create_all`
    or Alembic makes it from there. On PostgreSQL each write also wakes the relays (`NOTIFY`), unless `notify` is False
    or the transaction is two-phase. Raises `ConfigurationError` for a name that is none.
    """

    def __init__(
        self,
        table: str = "cacheinval_outbox",
        schema: str | None = None,
        *,
        metadata: MetaData | None = None,
        notify: bool = True,
    ) -> None:
        for name in (table, schema):
            if name is not None and not (isinstance(name, str) and name):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"The outbox needs a name for its table, and for its schema if any: {name!r}.")
        self.metadata = MetaData() if metadata is None else metadata
        self.notify = notify
        self.table = Table(
            table,
            self.metadata,
            Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
            Column("tags", Text, nullable=False, server_default="[]"),
            Column("soft", Boolean, nullable=False, server_default=false()),
            Column("everything", Boolean, nullable=False, server_default=false()),
            Column("trace", Text),
            Column("refused", Boolean, nullable=False, server_default=false()),
            Column("created", DateTime(timezone=True), nullable=False, server_default=func.current_timestamp()),
            schema=schema,
            # A number that has been used is not used again: the relay deletes by it.
            sqlite_autoincrement=True,
        )
        name = table if schema is None else f"{schema}.{table}"
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        self.channel = name if len(name.encode()) <= _LONGEST_CHANNEL else f"cacheinval_{digest}"
        self._insert = insert(self.table).values(
            {name: bindparam(name) for name in ("tags", "soft", "everything", "trace")}
        )
        written = self._insert.returning(self.table.c.id).cte("written")
        self._insert_and_notify = select(func.pg_notify(self.channel, "")).select_from(written)

    def __repr__(self) -> str:
        return f"<Outbox {self.table.fullname!r}>"

    # -- writing --------------------------------------------------------------------------------

    def add(self, where: Sync, /, *tags: str | Iterable[str], soft: bool = False, everything: bool = False) -> None:
        """Write what is to be purged in the transaction of a `Session` or `Connection`, to be committed with it.

        Tags may carry a client's data, as in `invalidate`; without any, and without `everything`, nothing is written.
        The trace that is current is what the purge's span links to. Below an `AsyncSession` it is called with the
        `Session` that `run_sync` gives, or use `add_async`. Raises `ConfigurationError` for anything else to write to,
        and for tags that are no strings.
        """
        self._add(where, _row(tags, soft=soft, everything=everything))

    async def add_async(
        self, where: Async, /, *tags: str | Iterable[str], soft: bool = False, everything: bool = False
    ) -> None:
        """`add` for an `AsyncSession` or `AsyncConnection`."""
        if isinstance(where, async_scoped_session):
            where = where()
        if not isinstance(where, AsyncSession | AsyncConnection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"add_async() takes an AsyncSession or AsyncConnection, not {where!r}.")
        row = _row(tags, soft=soft, everything=everything)
        await where.run_sync(self._add, row)

    def _add(self, where: Sync, row: dict[str, Any] | None) -> None:
        if isinstance(where, Session | scoped_session):
            # A session may have several engines, and one of them for this table.
            connection = where.connection(bind_arguments={"clause": self.table})
        elif isinstance(where, Connection):  # pyright: ignore[reportUnnecessaryIsInstance]
            connection = where
        else:
            raise ConfigurationError(
                f"add() takes a Session or Connection, not {where!r}: `await add_async()` takes the asynchronous ones."
            )
        if row is not None:
            connection.execute(self._statement(connection), row).close()

    def _statement(self, connection: Connection) -> Executable:
        notify = self.notify and connection.dialect.name == "postgresql"
        # PostgreSQL prepares no transaction that has notified.
        prepared = isinstance(connection.get_transaction(), TwoPhaseTransaction)
        return self._insert_and_notify if notify and not prepared else self._insert

    # -- writes of others -----------------------------------------------------------------------

    def triggers(
        self,
        table: str | Table,
        *,
        tags: Iterable[str],
        dialect: Dialect,
        operations: Iterable[Operation] = ("INSERT", "UPDATE", "DELETE"),
        schema: str | None = None,
        soft: bool = False,
        truncate: Iterable[str] | None = None,
    ) -> Triggers:
        """SQL that writes to the outbox whatever any program does to a table.

        `tags` are templates with names of columns in braces, such as `product:{id}`: each change purges those of the
        row as it was and as it is; a template with a column that is NULL is left out. `dialect` is `postgresql` or
        `sqlite`. A `TRUNCATE`, which PostgreSQL has, purges the tags `truncate`, and everything where that is None.
        After a trigger, PostgreSQL's `lastval()` gives the number of the row in the outbox.
        Raises `ConfigurationError` for a template, an operation or a name that cannot work.
        """
        name, inside = (table.name, table.schema) if isinstance(table, Table) else (table, schema)
        return triggers_for(
            self.table.name,
            self.table.schema,
            name,
            inside,
            columns={column.name: column.type for column in table.columns} if isinstance(table, Table) else None,
            tags=tuple(tags),
            dialect=dialect,
            operations=tuple(operations),
            soft=soft,
            truncate=None if truncate is None else tuple(truncate),
            channel=self.channel if self.notify else None,
        )


def _row(tags: tuple[str | Iterable[str], ...], *, soft: bool, everything: bool) -> dict[str, Any] | None:
    """What is written of one purge; None where there is nothing to purge."""
    named: list[str] = []
    for each in tags:
        named.extend((each,) if isinstance(each, str) else each)
    for tag in named:
        if not isinstance(tag, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"A tag is a str, not {type(tag).__name__}.")
    if not everything and not any(named):
        return None
    trace: dict[str, str] = {}
    _trace_context.inject(trace)
    return {
        "tags": json.dumps(list(dict.fromkeys(named))),
        "soft": soft,
        "everything": everything,
        "trace": json.dumps(trace) if trace else None,
    }
