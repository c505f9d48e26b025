"""A Redis for each test, and what has to hold after all of them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.engine.looks import looks
from tests.helpers.fleet import nothing_is_left_for_ever
from tests.servers import Valkey
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["looks", "permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """The log's keys, of whatever namespace; which of those they are `_nothing_left` knows better."""
    return ("{",)


@pytest.fixture(autouse=True)
def _nothing_left(redis_server: Valkey) -> Generator[None]:
    """After every test each key in Redis has a TTL, but for the four of each log."""
    yield
    redis_server.revive()
    nothing_is_left_for_ever(redis_server.client)
