"""One session that is watched, and what is purged while it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations

__all__ = ["watched"]


@contextmanager
def watched(
    engine: Engine, tags: dict[Any, Any] | None = None, **options: Any
) -> Iterator[tuple[Session, list[Receipt]]]:
    """A session, and the receipts of what is purged while the block runs; the watch ends with it."""
    sessions, cache = sessionmaker(engine), HTTPCache(enabled=False)
    collector = collect_changes(sessions, cache, tags, **options)
    try:
        with capture_invalidations(cache) as captured, sessions() as session:
            yield session, captured
    finally:
        collector.stop()
