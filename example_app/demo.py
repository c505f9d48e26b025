"""The README's story over real HTTP: ``python -m example_app.demo``.

Starts the showroom with uvicorn on PORT (default 8000), plays the story, and checks each fact it tells: the exit
code is 1 if one is not so, or if the port is taken. With a terminal it then serves until interrupted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from example_app.story import Story

HOST = "127.0.0.1"
START_SECONDS = 20.0


class DemoError(Exception):
    """The demo cannot start; the message is for whoever runs it."""


def chosen_port() -> int:
    """Return PORT, default 8000, if it is a port that nobody listens on."""
    text = os.environ.get("PORT") or "8000"
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise DemoError(f"PORT={text} is not a port number: choose one from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError as error:
            other = int(text) + 1 if int(text) < 65535 else 8000
            reason = error.strerror or "it cannot be used"
            raise DemoError(f"port {text}: {reason}. Choose another, say PORT={other}") from error
    return int(text)


@contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run uvicorn until the block ends."""
    uvicorn = [sys.executable, "-m", "uvicorn", "example_app.main:app", "--log-level", "warning"]
    # The story begins with the published prices, so not with a database that somebody keeps.
    environment = {name: value for name, value in os.environ.items() if name != "EXAMPLE_DB"}
    server = subprocess.Popen([*uvicorn, "--host", HOST, "--port", str(port)], env=environment)
    try:
        wait_until_up(server, f"http://{HOST}:{port}/debug/queries")
        yield server
    finally:
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_up(server: subprocess.Popen[bytes], url: str) -> None:
    """Return when the server answers; complain when it ended or takes too long."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise DemoError(f"the server ended with exit code {server.returncode}")
        try:
            httpx.get(url, trust_env=False).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise DemoError(f"the server did not answer within {START_SECONDS:.0f} s")


def stay_open(server: subprocess.Popen[bytes], url: str) -> None:
    """Leave the server to the visitors until somebody interrupts."""
    print(f"\nThe showroom is open at {url}/ (its API at {url}/docs). Ctrl-C closes it.")
    raise DemoError(f"the server ended by itself with exit code {server.wait()}")


def main() -> int:
    """Play the story; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        port = chosen_port()
        url = f"http://{HOST}:{port}"
        with serving(port) as server:
            told = asyncio.run(Story(url).play())
            if told and sys.stdin.isatty() and sys.stdout.isatty():
                stay_open(server, url)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 0
    return 0 if told else 1


if __name__ == "__main__":
    raise SystemExit(main())
