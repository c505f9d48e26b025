"""Each app's own tests run on both of its versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.apps.versions import STEPS, load


@pytest.fixture(params=STEPS)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """A client of the app that the test's module is named after, as it was and as it is."""
    name = request.module.__name__.rpartition("test_")[2]
    with TestClient(load(name, request.param, tmp_path).create_app(), follow_redirects=False) as client:
        yield client
