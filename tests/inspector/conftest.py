"""A Redis for the tests of replicas."""

from __future__ import annotations

from tests.servers.fixtures import permanent_prefixes, pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]
