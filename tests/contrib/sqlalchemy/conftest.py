"""A store for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contrib.sqlalchemy.store import Store


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(*args: Any, **options: Any) -> Store:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Store(folder, *args, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()
