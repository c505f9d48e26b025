"""The processes of a run: the suite's origin, a server for the proxy, the suite's client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["install", "origin", "results", "server", "tests_of"]

HERE = Path(__file__).parent
_PATIENCE = 30.0
_PACKAGE = "http-cache-tests@0.4.5"


def install(home: Path) -> Path:
    """The folder of the edition that the npm package carries, installed below `home` where it is not there yet."""
    folder = home / "node_modules" / "http-cache-tests"
    if not (folder / "node_modules").exists() and not (home / "node_modules" / "node-fetch").exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text('{"name": "conformance", "private": true}\n', encoding="utf-8")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", _PACKAGE]
        subprocess.run(command, cwd=home, check=True)
    return folder


def tests_of(folder: Path) -> list[dict[str, Any]]:
    """Every test of an edition that is not for browsers only."""
    command = ["node", str(HERE / "list_tests.mjs"), str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await_port(port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        for host in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((host, port), timeout=1).close()
            except OSError:
                continue
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


@contextmanager
def _running(command: list[str], port: int, **options: Any) -> Iterator[int]:
    process: subprocess.Popen[Any] = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)
    try:
        _await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _npm_environment(home: Path, **values: str) -> dict[str, str]:
    known = {"protocol": "http", "base": "", "id": "", "pidfile": str(home / "origin.pid"), **values}
    pairs = {f"npm_{kind}_{name}": value for name, value in known.items() for kind in ("config", "package_config")}
    return {**os.environ, **pairs}


@contextmanager
def origin(folder: Path, home: Path) -> Iterator[int]:
    """The suite's own server; its port."""
    port = _free_port()
    command = ["node", "--no-warnings", str(folder / "server" / "server.mjs")]
    with _running(command, port, cwd=folder, env=_npm_environment(home, port=str(port))):
        yield port


@contextmanager
def server(app: str, origin_port: int, **environment: str) -> Iterator[int]:
    """Run uvicorn with a proxy of `bench.conformance.proxy`; its port. Date and Server are the origin's own."""
    if app == "origin":
        # Nothing between the client and the origin: what a transparent proxy has to come to.
        yield origin_port
        return
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", f"bench.conformance.proxy:{app}", "--port", str(port)]
    command += ["--no-server-header", "--no-date-header", "--log-level", "critical"]
    command += ["--factory"] if app != "bare" else []
    options = {**os.environ, "ORIGIN": f"localhost:{origin_port}", **environment}
    with _running(command, port, env=options, cwd=HERE.parents[1]):
        yield port


def results(folder: Path, home: Path, port: int) -> dict[str, Any]:
    """What the suite's client says of each test: True, or the kind of failure and its message."""
    environment = _npm_environment(home, base=f"http://127.0.0.1:{port}")
    command = ["node", "--no-warnings", str(folder / "cli.mjs")]
    run = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    text = run.stdout.decode()
    return json.loads(text[text.index("{") :])
