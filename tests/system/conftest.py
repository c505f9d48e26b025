"""The example app under uvicorn, and a real browser to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from example_app.seed import USERS
from fastapi_cacheinval.testing import Replicas
from tests.servers.ports import free_port
from tests.system.browser import Browser
from tests.system.postgresql import PostgreSQL, postgresql

ROOT = Path(__file__).resolve().parents[2]
ADMIN = ("admin", USERS["admin"][0])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """One PostgreSQL cluster for all tests of a module."""
    with postgresql() as started:
        yield started


@contextlib.contextmanager
def stopped_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever the test does, the process does not outlive it."""
    with process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """The URL of a running example app with its own database."""
    # The socket listens before the server runs: the first request waits in it, and nobody else can take the port.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", "example_app.main:app", "--fd", str(listener.fileno())]
        environment = {**os.environ, "EXAMPLE_DB": str(tmp_path / "shop.db")}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()], text=True)
        with stopped_at_the_end(server):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert httpx.get(f"{url}/openapi.json", timeout=60).is_success
            yield url


class Fleet:
    """Replicas of the example app, and what may happen to their Valkey, for tests that are no coroutines."""

    def __init__(self, replicas: Replicas, runner: asyncio.Runner) -> None:
        self._replicas = replicas
        self._runner = runner

    @property
    def urls(self) -> list[str]:
        """Where each listens."""
        return list(self._replicas.urls)

    @property
    def redis_url(self) -> str:
        """The Valkey that they share."""
        return self._replicas.redis_url

    def kill_redis(self) -> None:
        """End the Valkey."""
        self._runner.run(self._replicas.kill_redis())

    def restart_redis(self) -> None:
        """Start it again, empty."""
        self._runner.run(self._replicas.restart_redis())

    def stop(self, number: int) -> None:
        """Shut a replica down as a deployment does."""
        self._runner.run(self._replicas.stop(number))

    def start(self, number: int) -> None:
        """Start a replica again."""
        self._runner.run(self._replicas.start(number))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three replicas of the example app, over a Valkey of their own; one fleet for all tests of a module."""
    ports = [free_port() for _ in range(3)]
    environment = {
        "EXAMPLE_DB": str(tmp_path_factory.mktemp("shop") / "shop.db"),
        "EXAMPLE_SECRET": "the same in all three",
        "REPLICAS": " ".join(f"http://127.0.0.1:{port}" for port in ports),
    }
    shop = Replicas("example_app.main:app", 3, environment=environment, ports=ports)
    with asyncio.Runner() as runner:
        runner.run(shop.__aenter__())
        try:
            yield Fleet(shop, runner)
        finally:
            runner.run(shop.__aexit__(None, None, None))


def discount(url: str, car: int, percent: int) -> None:
    """Change a price as the administrator."""
    token = httpx.post(f"{url}/token", data={"username": ADMIN[0], "password": ADMIN[1]}).json()["access_token"]
    answer = httpx.post(
        f"{url}/products/{car}/discount",
        json={"percent": percent},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.is_success, answer.text


@pytest.fixture
def replicated_shop(fleet: Fleet) -> list[str]:
    """The URLs of three replicas of the example app."""
    return fleet.urls


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A new headless Chromium."""
    with Browser.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def page(fleet: Fleet, browser: Browser) -> Iterator[Browser]:
    """The inspector of the first replica, open in the browser, signed in, and in touch."""
    name, password = ADMIN
    browser.look(1280, 900)
    browser.go(f"{fleet.urls[0].replace('://', f'://{name}:{password}@')}/_cache/")
    browser.until(lambda: browser.text("#link") == "In touch with Redis", "the page in touch")
    yield browser
    complaints = browser.complaints()
    # A request that was under way when a replica was stopped is the test's own doing.
    assert [each for each in complaints if "ERR_CONNECTION_REFUSED" not in each and "ERR_INCOMPLETE" not in each] == []
