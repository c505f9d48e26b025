"""Tests of the example app as a user would write them: each page as everybody, before and after changes."""

import pytest
from fastapi.testclient import TestClient

from example_app.main import create_app
from example_app.seed import USERS

PAGES = [
    "/",
    "/products",
    "/products?brand=Ford&page=2",
    "/products/1",
    "/products/11",
    "/search?q=a",
    "/brands",
    "/me/basket",
    "/admin/report",
]


@pytest.fixture
def client():
    with TestClient(create_app()) as client:
        yield client


@pytest.fixture
def callers(client):
    def sign_in(name):
        answer = client.post("/token", data={"username": name, "password": USERS[name][0]})
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    return [{}, *map(sign_in, USERS)]


def ask_all(client, callers):
    return [client.get(page, headers=caller).status_code for page in PAGES for caller in callers]


def test_everybody_reads_everything(client, callers, assert_never_stale):
    assert set(ask_all(client, callers)) == {200, 401, 403}
    ask_all(client, callers)


def test_what_is_changed_is_seen(client, callers):
    admin, alice = callers[3], callers[1]
    ask_all(client, callers)
    assert client.put("/products/11", json={"list_price": 1}, headers=admin).status_code == 200
    assert client.get("/products/11").json()["list_price"] == 1
    assert client.post("/products/1/discount", json={"percent": 10}, headers=admin).status_code == 200
    ask_all(client, callers)
    assert client.post("/brands/1/discount", json={"percent": 20}, headers=admin).status_code == 200
    assert client.put("/me/basket/11", json={"quantity": 3}, headers=alice).status_code == 204
    ask_all(client, callers)
