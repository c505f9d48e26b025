"""A Redis and an Amazon for each test, as processes of their own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.contrib.sqs.cloud import Cloud
from tests.servers.fixtures import permanent_prefixes, pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["permanent_prefixes", "pytest_runtest_makereport", "redis_server", "shared_valkey"]


@pytest.fixture(scope="session")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    """One server for all tests of this process; tests take `cloud`."""
    cloud = Cloud(Path(tmp_path_factory.mktemp("cloud")))
    cloud.start()
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(shared_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A server with nothing on it, which the test may kill and start again; what asks it finds credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of a test")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    shared_cloud.clear()
    return shared_cloud
