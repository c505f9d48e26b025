"""A Redis for the tests with replicas, and which modules a FastAPI without telemetry of its own leaves out."""

from __future__ import annotations

from importlib.util import find_spec

from tests.servers.fixtures import permanent_prefixes, pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]

# These are about FastAPI's telemetry, or have it make the server's spans: the lowest release that we allow has none.
_ABOUT_IT = ["test_agreement.py", "test_example.py", "test_replicas.py", "test_routes.py", "test_spans.py"]
collect_ignore = [] if find_spec("fastapi.telemetry") else _ABOUT_IT
