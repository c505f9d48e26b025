"""What the documentation's examples find around them: a Redis, a database, and their own folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.helpers.documents import EXAMPLES, LOCAL_REDIS
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


@pytest.fixture
def shop(surroundings: None, redis_server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`shop:app`, the first example of the pages over this test's Redis, from an empty folder."""
    text = (EXAMPLES / "replicated.py").read_text("utf-8")
    assert text.count(LOCAL_REDIS) == 1
    (tmp_path / "shop.py").write_text(text.replace(LOCAL_REDIS, redis_server.url))
    monkeypatch.chdir(tmp_path)
    return "shop:app"
