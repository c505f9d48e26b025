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
# Of the largest bodies, well below what the default `l1_max_bytes` holds: all are hits.
_URLS = 100
_QUIET = 0.1
_NAMES = {
    "bare": "bare ASGI",
    "stub": "stub middleware in FastAPI",
    "front hit": "front hit",
    "litestar": "Litestar's response cache",
    "uncached": "trivial FastAPI route, not cached",
}


def _disturbed(turn: Mapping[str, Seen]) -> float:
    return max(each.others for each in turn.values())


def _rounds(load: Load, servers: Mapping[str, Server], count: int) -> list[dict[str, Seen]]:
    """The quietest rounds of at most twice as many, each with one turn of every server."""
    rounds: list[dict[str, Seen]] = []
    order = list(servers)
    while len(rounds) < 2 * count and sum(_disturbed(turn) < _QUIET for turn in rounds) < count:
        order.append(order.pop(0))
        turn = {name: load.round(servers[name]) for name in order}
        for name, seen in turn.items():
            if seen.errors:
                raise RuntimeError(f"{name}: {seen.errors} answers were no 200")
        rounds.append(turn)
    return sorted(rounds, key=_disturbed)[:count]


def _rows(turns: Sequence[Mapping[str, Seen]]) -> list[Sequence[str]]:
    seen = {name: [turn[name] for turn in turns] for name in _NAMES if name in turns[0]}
    rates = {name: median(each.per_second for each in rounds) for name, rounds in seen.items()}
    cpu = {name: median(each.cpu for each in rounds) for name, rounds in seen.items()}
    rows: list[Sequence[str]] = []
    for name, rounds in seen.items():
        rate = rates[name]
        target = verdict = ""
        if name == "front hit":
            of_stub = rate / rates["stub"]
            by_cpu = cpu["stub"] / cpu[name]
            target = f"{_OF_STUB}× the stub's (aim 0.95): {of_stub:.2f}, by processor time {by_cpu:.2f}"
            verdict = reached(of_stub >= _OF_STUB)
            if "litestar" in rates:
                of_litestar = rate / rates["litestar"]
                by_cpu = cpu["litestar"] / cpu[name]
                target += f"; {_OF_LITESTAR}× Litestar's: {of_litestar:.2f}, by processor time {by_cpu:.2f}"
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
    count = options.pick(12, 1)
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name, size)) for name in names}
        for server in servers.values():
            load.warm(server)
        status = servers["front hit"].get("/items/1")[1].get("cache-status", "")
        if not status.startswith("cacheinval; hit"):
            raise RuntimeError(f"not a hit: {status!r}")
        rounds = _rounds(load, servers, count)
    parts = [name for name in ("uvloop", "httptools") if find_spec(name)]
    return Table(
        f"Through uvicorn, {size // 1024} KiB",
        f"uvicorn with {' and '.join(parts) or 'neither uvloop nor httptools'}, one process; load from {load}, server "
        f"and load {cores()}. Medians of {count} interleaved rounds of a second, the quietest where "
        f"other programs disturb: they took {median(map(_disturbed, rounds)):.0%} of a core in the worst second of the "
        "median round. Shares are of bare ASGI, processor time is the server's. All send the same JSON; bare and stub "
        "send the bytes of a hit.",
        ("app", "requests/s", "share", "CPU µs per request (share)", "p99 ms", "target: measured", "reached"),
        _rows(rounds),
    )


def run(options: Options) -> list[Table]:
    """A table for each size of body; the quick run has one."""
    wrk = prepare(install=not options.quick) if options.wrk else None
    load = Load(wrk, urls=options.pick(_URLS, 10), seconds=0.3 if options.quick else 1)
    return [_table(options, load, size) for size in ((1024,) if options.quick else (1024, 64 * 1024))]
