"""What the documentation's examples find around them: a Redis, a database, and their own folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.helpers.documents import EXAMPLES
from tests.servers import Valkey
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture
def permanent_prefixes() -> Iterable[str]:
    """The logs of the examples' namespaces."""
    return ("{cacheinval}", "{prices}", "{shop}")


@pytest.fixture(autouse=True)
def surroundings(redis_server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from the folder of the examples, with the variables that they read."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("CACHEINVAL_SECRET", "a secret of the examples")
    monkeypatch.setenv("PRICES", str(tmp_path))
