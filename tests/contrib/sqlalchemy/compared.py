"""What a transaction purges, beside the tags of the rows that it changes by what the database says before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of

__all__ = ["Compare", "Work"]

Work = Callable[[Session], Any]
Rows = Callable[[Connection], Iterable[tuple[str, Any]]]


class Compare:
    """Watches sessions with these tags; `rows` gives each row of a database with a tag that stands for it."""

    def __init__(self, tags: Any, rows: Rows, **options: Any) -> None:
        self._tags = tags
        self._rows = rows
        self._options = options

    def __call__(self, engine: Engine, work: Work) -> tuple[set[str], set[str]]:
        """Run a transaction: the tags that it purges, and those of the rows that differ after it."""
        cache, sessions = HTTPCache(), sessionmaker(engine)
        collector = collect_changes(sessions, cache, self._tags, **self._options)
        with engine.connect() as connection:
            before = set(self._rows(connection))
        try:
            with capture_invalidations(cache) as receipts, sessions.begin() as session:
                loaded: list[Any] = []
                event.listen(session, "loaded_as_persistent", lambda _, target: loaded.append(target))
                work(session)
        finally:
            collector.stop()
        assert not any(receipt.everything for receipt in receipts)
        with engine.connect() as connection:
            changed = before ^ set(self._rows(connection))
        return set().union(*tags_of(receipts)), {tag for tag, _ in changed}
