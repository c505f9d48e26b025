"""Helpers for tests of the route analysis: no cache runs in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient

from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.table import RouteTable


@pytest.fixture
def table() -> Callable[..., RouteTable]:
    """A route table of an app as a middleware around it would make it."""

    def make(app: Any, *, front: bool | None = None) -> RouteTable:
        inside = middleware_stack_of(app)
        return RouteTable(inside.app, inside, front=front)

    return make


@pytest.fixture
def plan(table: Callable[..., RouteTable]) -> Callable[..., RoutePlan]:
    """The plan of the one route with this path, of the app without the docs' routes."""

    def find(app: FastAPI, path: str = "/it", *, front: bool | None = None) -> RoutePlan:
        (found,) = [each for each in table(app, front=front).plans if each.path == path]
        return found

    return find


@pytest.fixture
def scopes() -> list[dict[str, Any]]:
    """The scopes seen by `probe`, in order."""
    return []


@pytest.fixture
def probe(scopes: list[dict[str, Any]]) -> Any:
    """A dependency that keeps the scope it is called in, as the route lookup would see it."""

    def keep(request: Request) -> None:
        scopes.append(dict(request.scope))

    return Depends(keep)


@pytest.fixture
def ask(scopes: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The scope inside the route that answers a request."""

    def request(app: Any, url: str, method: str = "GET") -> dict[str, Any]:
        before = len(scopes)
        response = TestClient(app).request(method, url)
        assert response.status_code == 200, response.text
        assert len(scopes) == before + 1
        return scopes[-1]

    return request
