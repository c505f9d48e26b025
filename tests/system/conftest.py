"""The example app under uvicorn, and a real browser to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fastapi_cacheinval.testing import Replicas
from tests.servers.ports import free_port
from tests.system.browser import Browser

ROOT = Path(__file__).resolve().parents[2]

# Root may not use Chromium's sandbox; the rest keeps the browser from calling home.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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


@pytest.fixture
def replicated_shop(tmp_path: Path) -> Iterator[list[str]]:
    """The URLs of three replicas of the example app, over a Valkey of their own."""
    ports = [free_port() for _ in range(3)]
    environment = {
        "EXAMPLE_DB": str(tmp_path / "shop.db"),
        "EXAMPLE_SECRET": "the same in all three",
        "REPLICAS": " ".join(f"http://127.0.0.1:{port}" for port in ports),
    }
    shop = Replicas("example_app.main:app", 3, environment=environment, ports=ports)
    with asyncio.Runner() as runner:
        runner.run(shop.__aenter__())
        try:
            yield list(shop.urls)
        finally:
            runner.run(shop.__aexit__(None, None, None))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A new headless Chromium, driven through chromedriver."""
    driver = shutil.which("chromedriver")
    assert driver, "no chromedriver on PATH: run these tests with `make test-system`"
    command = [driver, "--port=0", f"--log-path={tmp_path / 'chromedriver.log'}"]
    with stopped_at_the_end(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "started successfully on port" in line)
        port = said.rstrip(".\n").rpartition(" ")[2]
        flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
        with Browser.open(f"http://127.0.0.1:{port}", flags) as opened:
            yield opened
