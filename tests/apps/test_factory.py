"""The lists' own tests: they know of no cache."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

ACME, BOLT = {"X-API-Key": "key-of-acme"}, {"X-API-Key": "key-of-bolt"}


@pytest.mark.parametrize("kind", ["notes", "tasks"])
def test_each_tenant_has_lists_of_their_own(client: TestClient, kind: str) -> None:
    """Of each kind."""
    other = "tasks" if kind == "notes" else "notes"
    client.get(f"/{kind}", headers=ACME)
    client.post(f"/{kind}", params={"name": "one"}, headers=ACME)
    assert client.get(f"/{kind}", headers=ACME).json() == "one"
    assert client.get(f"/{other}", headers=ACME).json() == "nothing here"
    assert client.get(f"/{kind}", headers=BOLT).json() == "nothing here"


def test_the_language_is_the_callers(client: TestClient) -> None:
    """In turn."""
    for _ in range(2):
        for speaks, text in (("en", "nothing here"), ("fr", "rien ici")):
            assert client.get("/notes", headers={**ACME, "Accept-Language": speaks}).json() == text


def test_a_key_is_asked_for_each_time(client: TestClient) -> None:
    """Also where a tenant has just read the same."""
    assert client.get("/notes/count", headers=ACME).json() == 0
    assert client.get("/notes/count").status_code == 401
    assert client.get("/notes", headers={"X-API-Key": "wrong"}).status_code == 401


def test_the_count_is_of_all_tenants(client: TestClient) -> None:
    """It grows with each thing of its kind."""
    for number, key in enumerate((ACME, BOLT), 1):
        client.post("/notes", params={"name": "one"}, headers=key)
        for _ in range(2):
            assert client.get("/notes/count", headers=ACME).json() == number


def test_a_search_finds_the_tenants_own(client: TestClient) -> None:
    """By a part of the name."""
    client.post("/notes", params={"name": "milk"}, headers=ACME)
    assert client.post("/notes/search", params={"word": "il"}, headers=ACME).json() == ["milk"]
    assert client.post("/notes/search", params={"word": "il"}, headers=BOLT).json() == []
