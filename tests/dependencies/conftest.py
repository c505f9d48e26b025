"""What the tests of declarations share with those of the routes, and a real Valkey."""

from tests.routes.conftest import table
from tests.servers.fixtures import permanent_prefixes, pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey", "table"]
