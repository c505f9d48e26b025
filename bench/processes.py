"""Child processes on cores of their own: servers on one, what loads them on the other."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOAD_CORE", "SERVER_CORE", "Server", "answers", "busy_seconds", "cores", "end", "on_core", "serving"]

SERVER_CORE, LOAD_CORE = 0, 1
_PATIENCE = 30.0


def _usable() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores() -> str:
    """Whether server and load have a core each."""
    return "each on its own core" if len(_usable()) > 1 else "sharing one core, which makes the ratios unreliable"


@contextlib.contextmanager
def on_core(which: int) -> Iterator[None]:
    """Children that are started inside inherit this core."""
    usable = _usable()
    if len(usable) < 2:
        yield
        return
    os.sched_setaffinity(0, {usable[which]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def busy_seconds() -> float:
    """Seconds that all processors have worked so far for any process, with the time that the host took away."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server under measurement."""

    pid: int
    port: int

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, fields and body of one GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """The processor time that it and its children have used."""
        return sum(map(_cpu_seconds, [self.pid, *_children(self.pid)]))


def _cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    used = stat.rpartition(")")[2].split()
    return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text(encoding="ascii").split()):
            found += [child, *_children(child)]
    return found


def answers(server: Server, path: str, deadline: float) -> None:
    """Wait until a server answers a path with 200; raises where it does not."""
    while True:
        try:
            status, _, body = server.get(path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        if status != 200:
            raise RuntimeError(f"{path} answers {status}: {body[:200]!r}")
        return


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and kill it if it has not ended after ten seconds."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serving(name: str, size: int, path: str = "/items/1", http: str = "auto") -> Iterator[Server]:
    """One of the apps under uvicorn in a process of its own, answering; `http` is uvicorn's protocol."""
    with on_core(SERVER_CORE):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.serve", name, str(size), http],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of {name!r} did not start")
        server = Server(process.pid, int(line))
        answers(server, path, time.monotonic() + _PATIENCE)
        yield server
    finally:
        end(process)
        if process.stdout is not None:
            process.stdout.close()
