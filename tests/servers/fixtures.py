"""Fixtures and a hook for the `conftest.py` of tests that need Redis; that imports what is named in `__all__`."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import pytest

from tests.servers.child import children
from tests.servers.keys import every_key_has_a_ttl_or_is_permanent
from tests.servers.valkey import Valkey, valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture(scope="session")
def shared_valkey() -> Generator[Valkey]:
    """One server for all tests of this process; tests take `redis_server`."""
    with valkey() as server:
        yield server


@pytest.fixture
def permanent_prefixes() -> Iterable[str]:
    """How the names begin of keys that may stay for ever; a module with other ones has a fixture of this name."""
    return ("{cacheinval",)


@pytest.fixture
def redis_server(shared_valkey: Valkey, permanent_prefixes: Iterable[str]) -> Generator[Valkey]:
    """A server with nothing on it, which the test may pause, kill and restart.

    Afterwards every key that the test has left has to have a TTL, or to be declared permanent.
    """
    shared_valkey.clear()
    yield shared_valkey
    shared_valkey.revive()
    every_key_has_a_ttl_or_is_permanent(shared_valkey.client, permanent_prefixes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of a failed test has the output of the processes that were there."""
    report = yield
    if report.failed:
        report.sections.extend((f"output of {child}", child.tail(50)) for child in children)
    if call.when == "teardown":
        children[:] = [child for child in children if child.alive]
    return report
