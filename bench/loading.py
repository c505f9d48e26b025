"""Loading a server: with wrk where it can be had, else with a client of our own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import LOAD_CORE, Server, busy_seconds, on_core

__all__ = ["Load", "Seen", "own_client", "prepare"]

CONNECTIONS = 32

_SCRIPT = """
local requests = {{}}
local count = 0
wrk.headers = {fields}
function init(args)
  math.randomseed(1)
  for number = 1, {urls} do requests[number] = wrk.format("GET", "/items/" .. (number - 1)) end
end
function request()
  local chosen = requests[math.random(#requests)]
  if not {new} then return chosen end
  count = count + 1
  return (chosen:gsub("session=0", "session=" .. count))
end
"""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round saw.

    `cpu` is microseconds of the server's processor time per request, `others` the share of one core that
    neither the server nor the load used: other programs, or the host.
    """

    per_second: float
    p99_ms: float
    errors: int
    cpu: float
    others: float


def prepare(*, install: bool) -> str | None:
    """Where wrk is; it is installed from Debian's packages where that can be done."""
    found = shutil.which("wrk")
    if found is None and install and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "wrk"]):
            subprocess.run(command, stdout=sys.stderr, check=False)
        found = shutil.which("wrk")
    return found


def own_client(
    port: int, *, urls: int, seconds: float, pause: float = 0.0, connections: int = CONNECTIONS
) -> dict[str, float]:
    """One round of our own client, in a process on the load's core."""
    arguments = [str(value) for value in (port, urls, connections, seconds, pause)]
    with on_core(LOAD_CORE):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.client", *arguments],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
    out, _ = process.communicate(timeout=seconds + 30)
    if process.returncode:
        raise RuntimeError(f"the client failed with {process.returncode}")
    seen: dict[str, float] = json.loads(out)
    return seen


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Load:
    """Rounds of load on servers, drawn from `urls` URLs."""

    def __init__(
        self,
        wrk: str | None,
        urls: int,
        seconds: float,
        *,
        fields: Mapping[str, str] | None = None,
        new: bool = False,
        connections: int = CONNECTIONS,
    ) -> None:
        """Request heads carry `fields`; with `new` each `session=0` in them is another number every time."""
        self._wrk = wrk
        self._urls = urls
        self._seconds = seconds
        self._fields = dict(fields or {})
        self._new = new
        self._connections = connections

    def __str__(self) -> str:
        tool = "wrk" if self._wrk else "our own client (no wrk here), which is slower than the servers it loads"
        return f"{tool} with {self._connections} connections, keys drawn from {self._urls:,} URLs"

    def warm(self, server: Server) -> None:
        """Ask for each URL once."""
        for number in range(self._urls):
            status, _, _ = server.get(f"/items/{number}")
            if status != 200:
                raise RuntimeError(f"/items/{number} answers {status}")

    def round(self, server: Server) -> Seen:
        """One round."""
        began, busy, load, before = time.perf_counter(), busy_seconds(), _own_seconds(), server.cpu_seconds()
        if self._wrk is None:
            seen = own_client(server.port, urls=self._urls, seconds=self._seconds)
            per_second, p99, errors = seen["per_second"], seen["p99_ms"], int(seen["errors"])
            requests = seen["requests"]
        else:
            per_second, p99, errors, requests = self._with_wrk(self._wrk, server)
        used = server.cpu_seconds() - before
        others = busy_seconds() - busy - (_own_seconds() - load) - used
        seconds = time.perf_counter() - began
        return Seen(per_second, p99, errors, used / max(requests, 1) * 1e6, max(0.0, others / seconds))

    def _with_wrk(self, wrk: str, server: Server) -> tuple[float, float, int, float]:
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, on_core(LOAD_CORE):
            fields = "".join(f"[{json.dumps(name)}]={json.dumps(value)}," for name, value in self._fields.items())
            script.write(_SCRIPT.format(urls=self._urls, fields="{" + fields + "}", new=str(self._new).lower()))
            script.flush()
            command = [
                wrk,
                "-t1",
                f"-c{self._connections}",
                f"-d{max(1, round(self._seconds))}s",
                "--latency",
                "-s",
                script.name,
            ]
            ran = subprocess.run(
                [*command, f"http://127.0.0.1:{server.port}"], capture_output=True, text=True, check=True
            )
        return _read(ran.stdout)


def _read(text: str) -> tuple[float, float, int, float]:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text)
    total = re.search(r"(\d+) requests in", text)
    if rate is None or p99 is None or total is None:
        raise RuntimeError(f"wrk said something else than expected:\n{text}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return float(rate[1]), float(p99[1]) * _UNITS[p99[2]], int(bad[1]) if bad else 0, float(total[1])
