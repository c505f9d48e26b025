"""A Redis for each test, without the variables of the surroundings, and a way to run the command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from tests.cli.calls import Called, called
from tests.servers import Valkey
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture
def permanent_prefixes() -> Iterable[str]:
    """The logs of the tests' namespaces."""
    return ("{",)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the environment of whoever runs the tests says nothing."""
    for name in ("CACHEINVAL_URL", "CACHEINVAL_NAMESPACE", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(redis_server: Valkey) -> Any:
    """Call `cacheinval` against the test's server, in a thread: the command has an event loop of its own."""

    async def call(*arguments: str, url: str | None = None, columns: int = 100, **more: Any) -> Called:
        env = {"CACHEINVAL_URL": url or redis_server.url, "COLUMNS": str(columns)}
        return await asyncio.to_thread(called, *arguments, env=env, **more)

    return call
