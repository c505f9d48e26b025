"""A Redis and a shop with an outbox for each test."""

from __future__ import annotations

from tests.contrib.outbox.conftest import (
    opened,
    permanent_prefixes,
    pytest_runtest_makereport,
    redis_server,
    shared_valkey,
)

__all__ = ["opened", "permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]
