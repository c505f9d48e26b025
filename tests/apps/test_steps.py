"""Each app was cached in one commit: its steps are replayed, and every GET is compared with and without the cache."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from tests.apps.versions import HERE, NAMES, before, load, patched

# Every caller that an app knows, one that it does not know, and one without credentials.
CALLERS: dict[str, dict[str, Mapping[str, str]]] = {
    "views": {name: {"Authorization": f"Bearer token-of-{name}"} for name in ("alice", "bob", "eve", "mallory")},
    "factory": {name: {"X-API-Key": f"key-of-{name}"} for name in ("acme", "bolt", "nobody")},
    "sessions": {name: {"Cookie": f"session=session-of-{name}"} for name in ("alice", "bob", "mallory")},
}
VALUES = {"product_id": ("1", "2", "9", "x")}
# What changes something, by whom, between two rounds of reading everything.
CHANGES: dict[str, list[tuple[str, str, str]]] = {
    "views": [
        ("PUT", "/products/1?name=pot", "alice"),
        ("PUT", "/products/2?name=mug", "bob"),
        ("POST", "/orders?product_id=1", "bob"),
        ("POST", "/orders?product_id=2", "eve"),
    ],
    "factory": [
        ("POST", "/notes?name=milk", "acme"),
        ("POST", "/tasks?name=rest", "bolt"),
        ("POST", "/notes/search?word=il", "acme"),
        ("POST", "/notes?name=salt", "nobody"),
    ],
    "sessions": [
        ("POST", "/theme?name=dark", "alice"),
        ("POST", "/theme?name=red", "mallory"),
        ("POST", "/sign-out", "bob"),
    ],
}
OURS = {"age", "cache-control", "cache-status", "cacheinval-purge", "etag", "surrogate-key", "vary"}


@pytest.mark.parametrize("name", NAMES)
def test_the_commit_is_replayed(name: str, tmp_path: Path) -> None:
    """Without its diff the app knows nothing of the cache; with it, it is what stands there, line for line."""
    plain = before(name, tmp_path)
    assert "cache" not in plain
    assert patched(name, plain, tmp_path, reverse=False) == (HERE / f"{name}.py").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_commit_changes_declarations_and_nothing_else(name: str, tmp_path: Path) -> None:
    """Every function has the body that it had, but for what declares a policy or adds the middleware."""

    def bodies(text: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name not in ("__init__", "create_app", "make_router"):
                yield f"{node.name}({ast.dump(node.args)}): {[ast.dump(each) for each in node.body]}"

    assert [*bodies(before(name, tmp_path))] == [*bodies((HERE / f"{name}.py").read_text("utf-8"))]


@pytest.mark.parametrize("name", NAMES)
def test_each_get_is_cached(name: str, tmp_path: Path) -> None:
    """No route is left out, and the audit has nothing to say against any."""
    app = load(name, "cached", tmp_path).create_app()
    inside = middleware_stack_of(app)
    table = RouteTable(app, inside)
    table.audit()
    assert table.warnings() == []
    assert all(plan.policy is not None for plan in table.plans if "GET" in plan.methods)


def _paths(app: FastAPI) -> list[str]:
    """Every GET of an app, with each value of its parameters."""
    found: list[str] = []
    inside = middleware_stack_of(app)
    for plan in RouteTable(app, inside).plans:
        if "GET" in plan.methods:
            names = [part[1:-1] for part in plan.path.split("/") if part.startswith("{")]
            every = product(*(VALUES[each] for each in names))
            found += [plan.path.format(**dict(zip(names, values, strict=True))) for values in every]
    assert len(found) > 1
    return found


def _told(answer: Any) -> Any:
    fields = sorted((name, value) for name, value in answer.headers.multi_items() if name not in OURS)
    return answer.status_code, answer.content, fields


@pytest.mark.parametrize("name", NAMES)
def test_every_get_is_what_it_is_without_the_cache(name: str, tmp_path: Path) -> None:
    """For each known caller, for an unknown one and without credentials, twice, before and after each change."""
    callers: dict[str, Mapping[str, str]] = {**CALLERS[name], "": {}}
    languages: tuple[Mapping[str, str], ...] = ({}, {"Accept-Language": "fr"})
    versions = [load(name, step, tmp_path).create_app() for step in ("plain", "cached")]
    hits = 0
    with (
        TestClient(versions[0], follow_redirects=False) as plain,
        TestClient(versions[1], follow_redirects=False) as cached,
    ):
        asked = [*product(_paths(versions[0]), callers.items(), languages)]
        for change in (None, *CHANGES[name]):
            if change is not None:
                method, url, by = change
                answers = [client.request(method, url, headers=callers[by]) for client in (plain, cached)]
                assert _told(answers[0]) == _told(answers[1]), change
            for _ in range(2):
                for path, (caller, headers), language in asked:
                    expected = plain.get(path, headers={**headers, **language})
                    answer = cached.get(path, headers={**headers, **language})
                    assert _told(answer) == _told(expected), (change, path, caller, language)
                    hits += "hit" in answer.headers.get("cache-status", "")
    # At least the second round of those that are answered.
    assert hits > len(asked)


@pytest.mark.parametrize("name", NAMES)
def test_the_middleware_alone_changes_nothing(name: str, tmp_path: Path) -> None:
    """The app as it was, behind a cache that no route has heard of."""
    apps = [load(name, "plain", tmp_path).create_app() for _ in range(2)]
    apps[1].add_middleware(CacheMiddleware, cache=HTTPCache())
    with (
        TestClient(apps[0], follow_redirects=False) as plain,
        TestClient(apps[1], follow_redirects=False) as behind,
    ):
        for path, headers in product(_paths(apps[0]), (*CALLERS[name].values(), {})):
            expected, answer = plain.get(path, headers=headers), behind.get(path, headers=headers)
            assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
            assert answer.headers.multi_items() == expected.headers.multi_items()
