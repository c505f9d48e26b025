"""A transactional outbox: what is to be purged is a row of the transaction that changes it, and a relay purges it."""

from __future__ import annotations

try:
    from fastapi_cacheinval.contrib.outbox.reading import UnreadableRow
    from fastapi_cacheinval.contrib.outbox.relay import OutboxRelay
    from fastapi_cacheinval.contrib.outbox.table import Outbox
    from fastapi_cacheinval.contrib.outbox.triggers import Triggers
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "sqlalchemy":
        raise
    raise ImportError(
        "fastapi_cacheinval.contrib.outbox works on SQLAlchemy: pip install 'fastapi-cacheinval[outbox]'"
    ) from missing

__all__ = ["Outbox", "OutboxRelay", "Triggers", "UnreadableRow"]
