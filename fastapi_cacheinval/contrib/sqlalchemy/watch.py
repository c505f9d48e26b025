"""What every kind of statement needs: the rules, what was changed, and the last resorts where rows cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Result
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_cacheinval.contrib.sqlalchemy.flushing import Flushes
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Ledger
from fastapi_cacheinval.contrib.sqlalchemy.looking import Looks
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import FLUSHES_BEFORE_TABLES, autoflush

__all__ = ["Watch"]


@dataclass(frozen=True, slots=True)
class Watch:
    """The parts of a collector; `settle` purges at once what a connection in autocommit has written."""

    book: RuleBook
    ledger: Ledger
    flushes: Flushes
    looks: Looks
    settle: Callable[[Session, Connection | None], None]

    def widely(self, state: ORMExecuteState, mappers: Iterable[Mapper[Any]], what: str) -> Result[Any]:
        """Run a statement exactly as it is written, and purge what stands for any row of these classes."""
        tags = self.book.any_row(mappers, what)
        result = state.invoke_statement()
        self.ledger.add(state.session, tags)
        return result

    @staticmethod
    def flush(state: ORMExecuteState) -> None:
        """Flush where the statement itself does that before it is run, and before it begins."""
        flushes = state.execution_options.get("autoflush", True) if state.is_orm_statement else FLUSHES_BEFORE_TABLES
        if flushes:
            autoflush(state.session)
