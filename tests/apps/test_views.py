"""The shop's own tests: they know of no cache."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer token-of-{name}"}


def test_everybody_reads_products(client: TestClient) -> None:
    """With a token or without one."""
    for _ in range(2):
        assert client.get("/products").json() == ["cup", "kettle"]
        assert client.get("/products/1", headers=by("bob")).json() == "kettle"
        assert client.get("/products/9").status_code == 404


def test_a_new_name_is_read_at_once(client: TestClient) -> None:
    """By itself and in the list."""
    for path in ("/products", "/products/1"):
        client.get(path)
    assert client.put("/products/1", params={"name": "pot"}, headers=by("alice")).status_code == 200
    assert client.get("/products/1").json() == "pot"
    assert client.get("/products").json() == ["cup", "pot"]


@pytest.mark.parametrize(("name", "status"), [("bob", 403), ("nobody", 401)])
def test_only_an_administrator_writes(client: TestClient, name: str, status: int) -> None:
    """Anybody else changes nothing."""
    assert client.put("/products/1", params={"name": "pot"}, headers=by(name)).status_code == status
    assert client.get("/products/1").json() == "kettle"


def test_each_user_has_orders_of_their_own(client: TestClient) -> None:
    """And sees what they have ordered at once."""
    for _ in range(2):
        assert client.get("/orders", headers=by("bob")).json() == []
    client.post("/orders", params={"product_id": 2}, headers=by("bob"))
    assert client.get("/orders", headers=by("bob")).json() == [2]
    assert client.get("/orders", headers=by("eve")).json() == []
    assert client.get("/me", headers=by("eve")).json()["name"] == "eve"


def test_the_report_is_for_administrators(client: TestClient) -> None:
    """Also when one has just read it; it counts every order."""
    assert client.get("/report", headers=by("alice")).json() == 0
    assert client.get("/report", headers=by("bob")).status_code == 403
    client.post("/orders", params={"product_id": 2}, headers=by("bob"))
    assert client.get("/report", headers=by("alice")).json() == 1
