"""What was purged while a block ran."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["capture_invalidations"]


@contextmanager
def capture_invalidations(cache: HTTPCache) -> Generator[list[Receipt], None, None]:
    """The receipts of every purge made on this replica while the block runs, in order."""
    if not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"capture_invalidations takes an HTTPCache, not {cache!r}.")
    receipts: list[Receipt] = []
    note = receipts.append
    cache.add_observer(note)
    try:
        yield receipts
    finally:
        cache.remove_observer(note)
