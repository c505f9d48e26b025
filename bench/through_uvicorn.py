"""The front hit behind a real server, beside what it is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from statistics import median

from bench.apps import APPS, has_litestar
from bench.loading import Load, Seen, prepare
from bench.processes import Server, cores, serving
from bench.report import Options, Table, reached

__all__ = ["run"]

_OF_STUB, _OF_LITESTAR = 0.9, 1.7
_NAMES = {
    "bare": "bare ASGI",
    "stub": "stub middleware in FastAPI",
    "front hit": "front hit",
    "litestar": "Litestar's response cache",
    "uncached": "trivial FastAPI route, not cached",
}


def _rounds(load: Load, servers: Mapping[str, Server], count: int) -> dict[str, list[Seen]]:
    seen: dict[str, list[Seen]] = {name: [] for name in servers}
    order = list(servers)
    for _ in range(count):
        order.append(order.pop(0))
        for name in order:
            seen[name].append(load.round(servers[name]))
    for name, rounds in seen.items():
        if errors := sum(each.errors for each in rounds):
            raise RuntimeError(f"{name}: {errors} answers were no 200")
    return seen


def _rows(seen: Mapping[str, Sequence[Seen]]) -> list[Sequence[str]]:
    rates = {name: median(each.per_second for each in rounds) for name, rounds in seen.items()}
    cpu = {name: median(each.cpu for each in rounds) for name, rounds in seen.items()}
    rows: list[Sequence[str]] = []
    for name, rounds in seen.items():
        rate = rates[name]
        target = verdict = ""
        if name == "front hit":
            of_stub = rate / rates["stub"]
            target, verdict = f"{_OF_STUB}× the stub's (aim 0.95): {of_stub:.2f}", reached(of_stub >= _OF_STUB)
            if "litestar" in rates:
                of_litestar = rate / rates["litestar"]
                target += f"; {_OF_LITESTAR}× Litestar's: {of_litestar:.2f}"
                verdict += f"; {reached(of_litestar >= _OF_LITESTAR)}"
        rows.append(
            (
                _NAMES[name],
                f"{rate:,.0f}",
                f"{rate / rates['bare']:.2f}",
                f"{cpu[name]:.1f} ({cpu[name] / cpu['bare']:.2f})",
                f"{median(each.p99_ms for each in rounds):.2f}",
                target,
                verdict,
            )
        )
    return rows


def _table(options: Options, load: Load, size: int) -> Table:
    names = [name for name in APPS if name != "litestar" or has_litestar()]
    rounds = options.pick(9, 1)
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name, size)) for name in names}
        for server in servers.values():
            load.warm(server)
        status = servers["front hit"].get("/items/1")[1].get("cache-status", "")
        if not status.startswith("cacheinval; hit"):
            raise RuntimeError(f"not a hit: {status!r}")
        seen = _rounds(load, servers, rounds)
    parts = [name for name in ("uvloop", "httptools") if find_spec(name)]
    return Table(
        f"Through uvicorn, {size // 1024} KiB",
        f"uvicorn with {' and '.join(parts) or 'neither uvloop nor httptools'}, one process; load from {load}, server "
        f"and load {cores()}. {rounds} interleaved rounds, medians; shares are of bare ASGI, processor time is the "
        "server's. All send the same JSON; bare and stub send the bytes of a hit.",
        ("app", "requests/s", "share", "CPU µs per request (share)", "p99 ms", "target: measured", "reached"),
        _rows(seen),
    )


def run(options: Options) -> list[Table]:
    """A table for each size of body; the quick run has one."""
    wrk = prepare(install=not options.quick) if options.wrk else None
    load = Load(wrk, urls=options.pick(1_000, 10), seconds=0.3 if options.quick else 3)
    return [_table(options, load, size) for size in ((1024,) if options.quick else (1024, 64 * 1024))]
