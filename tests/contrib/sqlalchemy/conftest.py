"""A store for each test, or an engine over a file with its tables, and a cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_cacheinval import HTTPCache
from tests.contrib.sqlalchemy.store import Store, make_engine


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


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_engine(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(engine: Engine) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(f"sqlite+aiosqlite:///{engine.url.database}")
    yield made
    await made.dispose()


@pytest.fixture
def cache() -> HTTPCache:
    return HTTPCache()
