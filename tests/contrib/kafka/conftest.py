"""A Kafka and a Redis for each test."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.contrib.kafka.broker import Kafka, kafka
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["broker", "permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """The log's keys, of whatever namespace."""
    return ("{",)


@pytest.fixture
def broker() -> Generator[Kafka]:
    """A cluster with nothing on it."""
    with kafka() as cluster:
        yield cluster
