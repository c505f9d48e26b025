"""A test that looks for nothing fails, because a page leaks: run it, with pytest or as a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


def current_user(authorization: Annotated[str, Header()] = "") -> str:
    return authorization.removeprefix("Bearer ") or "nobody"


@app.get("/basket", dependencies=[cached(ttl=60, shared=True)])
async def read_basket(user: Annotated[str, Depends(current_user)]) -> str:
    return f"the basket of {user}"


@pytest.fixture
def cache_under_test() -> HTTPCache:
    return cache


@pytest.fixture
def client(http_cache: HTTPCache) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


class TestBasket:
    def test_it_is_there(self, client: TestClient) -> None:
        assert client.get("/basket", headers={"Authorization": "Bearer ann"}).status_code == 200


if __name__ == "__main__":
    command = "-m pytest -q -p no:cacheprovider -p fastapi_cacheinval.pytest_plugin --cacheinval-leaks"
    ran = subprocess.run([sys.executable, *command.split(), __file__], capture_output=True, text=True, check=False)  # noqa: S603
    print(ran.stdout[ran.stdout.index("leak:") : ran.stdout.index("\n---")])
