"""A Redis and a shop in an SQLite file for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.outbox import Shop, shop
from tests.servers import Valkey
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """The log's keys."""
    return ("{cacheinval}",)


@pytest.fixture
async def opened(redis_server: Valkey, tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop in a file of its own."""
    async with shop(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}", redis_server.url) as made:
        yield made
