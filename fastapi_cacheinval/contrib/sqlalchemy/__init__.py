"""What SQLAlchemy and SQLModel sessions commit becomes purges: `collect_changes`. The extra is `sqlalchemy`."""

from __future__ import annotations

try:
    import greenlet as _greenlet  # type: ignore[import-untyped]
    import sqlalchemy.ext.asyncio as _asyncio
except ImportError as _missing:
    raise ImportError(
        "fastapi_cacheinval.contrib.sqlalchemy needs SQLAlchemy: pip install 'fastapi-cacheinval[sqlalchemy]'"
    ) from _missing

from fastapi_cacheinval.contrib.sqlalchemy.collector import Collector, Outbox, collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.errors import CommitRefused, CommittedNotPurged, UnknownRows

__all__ = ["Collector", "CommitRefused", "CommittedNotPurged", "Outbox", "UnknownRows", "collect_changes"]

del _asyncio, _greenlet
