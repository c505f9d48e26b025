"""The example app under uvicorn, and a real browser to look at it."""

from __future__ import annotations

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
