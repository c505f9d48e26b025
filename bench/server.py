"""Hits in uvicorn's protocol, beside hits in the app and beside nginx, Varnish and HAProxy with their caches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

from bench.apps import has_litestar
from bench.loading import Load, Seen, prepare
from bench.processes import Server, cores, serving
from bench.proxies import PROXIES, find_proxies, proxying
from bench.report import Options, Table, reached

__all__ = ["run"]

# The most that a hit in the protocol may take of the best proxy's processor time.
_REPEATED, _NEW = 0.5, 0.85
_PROTOCOL = "fastapi_cacheinval.uvicorn:CacheProtocol"
_OURS = "front hit in the protocol"
_BROWSER = {
    "Connection": "keep-alive",
    "Cache-Control": "max-age=0",
    "sec-ch-ua": '"Chromium";v="142", "Not(A:Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-US,en;q=0.9",
    "Cookie": "theme=dark; session=0",
}


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of load; `most` is the share of the best proxy's processor time that is to be reached."""

    title: str
    size: int
    urls: int
    most: float
    browser: bool = True
    new: bool = False
    conditional: bool = False


_CASES = (
    _Case("1 KiB, a browser's head, heads repeat", 1024, 1_000, _REPEATED),
    _Case("1 KiB, a browser's head, each new", 1024, 1_000, _NEW, new=True),
    _Case("1 KiB, one URL, a bare head", 1024, 1, _REPEATED, browser=False),
    _Case("304, a browser's head, heads repeat", 1024, 1_000, _REPEATED, conditional=True),
    _Case("304, a browser's head, each new", 1024, 1_000, _NEW, new=True, conditional=True),
    _Case("64 KiB, a browser's head, heads repeat", 64 * 1024, 500, _REPEATED),
    _Case("64 KiB, a browser's head, each new", 64 * 1024, 500, _NEW, new=True),
)


def _load(case: _Case, options: Options, wrk: str | None, etag: str) -> Load:
    fields = dict(_BROWSER) if case.browser else {}
    if case.conditional:
        fields["If-None-Match"] = etag
    urls = options.pick(case.urls, min(case.urls, 5))
    seconds = 0.3 if options.quick else 1
    return Load(wrk, urls, seconds, fields=fields, new=case.new, connections=16)


@contextlib.contextmanager
def _contender(name: str, size: int, backend: Server) -> Iterator[Server]:
    if name in PROXIES:
        with proxying(name, backend.port) as server:
            yield server
    else:
        app, http = {_OURS: ("front hit", _PROTOCOL), "front hit in the app": ("front hit", "auto")}.get(
            name, (name, "auto")
        )
        with serving(app, size, http=http) as server:
            yield server


def _case(case: _Case, options: Options, wrk: str | None, names: Sequence[str]) -> Table:
    count = options.pick(7, 1)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(serving("bare", case.size))
        etag = backend.get("/items/1")[1]["etag"]
        load = _load(case, options, wrk, etag)
        servers = {name: stack.enter_context(_contender(name, case.size, backend)) for name in names}
        for server in servers.values():
            load.warm(server)
            load.round(server)
        rounds: list[Mapping[str, Seen]] = []
        order = list(servers)
        for _ in range(count):
            order.append(order.pop(0))
            rounds.append({name: load.round(servers[name]) for name in order})
    return Table(
        f"Hits inside the server: {case.title}",
        f"Load from {load}; server and load {cores()}, each server the only one that runs. Medians of {count} "
        f"interleaved rounds of a second; uvicorn with "
        f"{' and '.join(part for part in ('uvloop', 'httptools') if find_spec(part))}. Shares are of bare ASGI; "
        "processor time is the server's own. Bare ASGI and the proxies' backend send the bytes of a hit.",
        ("server", "requests/s", "share", "CPU µs per request (share)", "p99 ms", "of the best proxy's CPU", "reached"),
        _rows(case, names, rounds),
    )


def _rows(case: _Case, names: Sequence[str], rounds: Sequence[Mapping[str, Seen]]) -> list[Sequence[str]]:
    rates = {name: median(turn[name].per_second for turn in rounds) for name in names}
    cpu = {name: median(turn[name].cpu for turn in rounds) for name in names}
    best = min((cpu[name] for name in names if name in PROXIES), default=0.0)
    rows: list[Sequence[str]] = []
    for name in names:
        of_best = verdict = ""
        if name == _OURS and best:
            of_best = f"at most {case.most}: {cpu[name] / best:.2f}"
            verdict = reached(cpu[name] <= case.most * best)
        elif best:
            of_best = f"{cpu[name] / best:.2f}"
        rows.append(
            (
                {"bare": "bare ASGI", "stub": "stub middleware", "litestar": "Litestar's response cache"}.get(
                    name, name
                ),
                f"{rates[name]:,.0f}",
                f"{rates[name] / rates['bare']:.2f}",
                f"{cpu[name]:.1f} ({cpu[name] / cpu['bare']:.2f})",
                f"{median(turn[name].p99_ms for turn in rounds):.2f}",
                of_best,
                verdict if verdict or name != _OURS else "no proxy here",
            )
        )
    return rows


def run(options: Options) -> list[Table]:
    """A table for each kind of load; the quick run has one."""
    wrk = prepare(install=not options.quick) if options.wrk else None
    proxies = find_proxies(install=not options.quick and options.wrk)
    names = ["bare", "stub", "front hit in the app", _OURS, *(["litestar"] if has_litestar() else []), *proxies]
    return [_case(case, options, wrk, names) for case in (_CASES[:1] if options.quick else _CASES)]
