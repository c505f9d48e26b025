"""What processes share over one Redis, and what they must not: each numbers, builds and overrides in its own way."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import httpx
import pytest

from tests.servers import Valkey, processes, until


class Process:
    """One process that serves `served_keys`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(timeout=20, trust_env=False)

    def get(self, path: str = "/page", host: str = "shop.test", **headers: str) -> httpx.Response:
        """One answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.get(self.url + path, headers={"host": host, **named})

    def text(self, path: str = "/page", **more: str) -> str:
        """Whose page it is."""
        return self.get(path, **more).text.strip('"')

    def live(self) -> bool:
        """Whether it holds a lease."""
        return bool(self.get("/statistics").json()["live"])

    def written(self) -> int:
        """How often it has written to L2."""
        return int(self.get("/statistics").json()["l2"].get("write", 0))

    def close(self) -> None:
        """End the client."""
        self._client.close()


@contextlib.contextmanager
def serving(
    server: Valkey, kind: str, name: str = "", *, options: tuple[str, ...] = (), **environment: str
) -> Generator[Process]:
    """One process in touch with the log."""
    given = {"REDIS": server.url, "KIND": kind, "NAME": name, **environment}
    with processes(
        "tests.engine.served_keys:app", 1, environment=given, path="/statistics", options=options
    ) as running:
        process = Process(running.urls[0])
        with contextlib.closing(process):
            until(process.live, "a lease")
            yield process


def shares(one: Process, two: Process, path: str = "/control", **more: str) -> None:
    """What one process has filled the other serves; and so what was filled before it has been written as well."""
    before = one.written()
    filled = one.get(path, **more)
    assert "stored" in filled.headers["cache-status"]
    until(lambda: one.written() > before, "a write to L2")
    found = two.get(path, **more)
    assert "hit" in found.headers["cache-status"]
    assert found.text == filled.text


@pytest.mark.parametrize(("kind", "path"), [("dispatcher", "/tenants/page"), ("apps", "/page")])
def test_a_process_that_is_asked_for_one_tenant_alone(redis_server: Valkey, kind: str, path: str) -> None:
    """The first met in one process is acme's app, in the other bolt's: neither hands out the other's page."""
    with serving(redis_server, kind) as one, serving(redis_server, kind) as two:
        assert one.text(path, x_tenant="acme") == "acme"
        shares(one, two)
        assert two.text(path, x_tenant="bolt") == "bolt"
        assert one.text(path, x_tenant="bolt") == "bolt"
        assert two.text(path, x_tenant="acme") == "acme"


def test_a_process_that_overrides_a_dependency(redis_server: Valkey) -> None:
    """Nothing goes from it to the others, nor from them, nor between two that override in their own ways."""
    with (
        serving(redis_server, "overrides", "one") as one,
        serving(redis_server, "overrides", "two") as two,
        serving(redis_server, "overrides") as plain,
    ):
        assert one.text() == "one"
        assert plain.text() == "plain"
        until(lambda: plain.written() >= 1, "a write to L2")
        assert two.text() == "two"
        assert one.text() == "one"
        assert plain.text() == "plain"
        assert one.written() == two.written() == 0


def test_processes_that_build_their_hosts_in_another_order(redis_server: Valkey) -> None:
    """Or only some of them: the pattern of the host is in the key, the order is not."""
    with (
        serving(redis_server, "hosts", "acme,bolt") as one,
        serving(redis_server, "hosts", "bolt,acme") as two,
        serving(redis_server, "hosts", "bolt") as three,
    ):
        for process in (one, two):
            assert process.text(host="acme.example") == "acme"
        for process in (one, two, three):
            assert process.text(host="bolt.example") == "bolt"
        assert "hit" in three.get(host="bolt.example").headers["cache-status"]


@pytest.mark.parametrize("kind", ["policy", "headers"])
@pytest.mark.parametrize("by_server", [True, False])
def test_two_services_that_their_root_paths_tell_apart(redis_server: Valkey, kind: str, by_server: bool) -> None:
    """One Redis, one namespace, one host, the same names of handlers: `/users` and `/orders` have each their own pages.

    Replicas under one root path still share.
    """

    def service(name: str) -> Any:
        if by_server:
            return serving(redis_server, kind, name, options=("--root-path", f"/{name}"))
        return serving(redis_server, kind, name, ROOT_PATH=f"/{name}")

    with service("users") as users, service("orders") as orders, service("users") as replica:
        assert users.text() == "users"
        until(lambda: users.written() >= 1, "a write to L2")
        assert orders.text() == "orders"
        answer = replica.get()
        assert "hit" in answer.headers["cache-status"]
        assert answer.text.strip('"') == "users"
        assert users.text() == "users"
