"""An explanation as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.text import Text

from fastapi_cacheinval.cli.console import field
from fastapi_cacheinval.cli.exits import CliError
from fastapi_cacheinval.cli.last_purge import LastPurge
from fastapi_cacheinval.cli.numbers import bytes_of, duration, moment
from fastapi_cacheinval.cli.safe import cut, plain
from fastapi_cacheinval.core.explanation import Explanation, StoredCopy
from fastapi_cacheinval.core.words import few

__all__ = ["Known", "answered_at", "explained_lines"]

_COLOURS = {"hit": "green", "stale": "yellow", "collapsed": "yellow", "miss": "red", "bypass": "cyan"}
_MOST_TAGS = 20
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a request: by the app, where that was asked, and by the log.

    `purges_known` is whether the log was asked for its last purge, and `fault` why it could not be.
    """

    path: str
    explanation: Explanation | None
    last_purge: LastPurge | None
    purges_known: bool = True
    fault: CliError | None = None


def explained_lines(known: Known, console: Console) -> Iterator[Text]:
    """The result first, and then why."""
    told = known.explanation
    if told is None:
        yield Text(cut(known.path, 4 * console.width), style="bold")
        yield from _purged(known.last_purge, console, "The path was never purged, as far as the log remembers.")
        yield Text("Name the app for its route, its key and what is stored: --app MODULE:APP", style="dim")
        return
    style = _COLOURS.get(told.result, "bold")
    path = cut(told.path, 4 * console.width)
    yield Text.assemble((f"{told.method} ", "bold"), (path, "bold"), ": ", (told.result, style))
    yield from field("because", Text(plain(told.because)), console)
    for name, value in _facts(told).items():
        yield from field(name, Text(plain(value)), console)
    for copy in told.stored:
        yield from field("stored", Text(plain(_copy(copy))), console)
    if known.purges_known:
        yield from _purged(known.last_purge, console, "never, as far as the log remembers")
    for each in told.unknown:
        yield from field("unknown", Text(plain(each), style="yellow"), console)


def _facts(told: Explanation) -> dict[str, str]:
    """What is known of them, by name."""
    shared = f"{told.shared_by}: {told.why}" if told.shared_by else ""
    found = {
        "route": told.route or "none",
        "shared by": shared,
        "answered": answered_at(told.lookup, told.front_off) if told.lookup is not None else "",
        "key": ", ".join(told.key_parts) + (f" ({told.key})" if told.key else ""),
        "tags": few(told.tags, _MOST_TAGS, partial(cut, most=_LONGEST)),
        "reason": ", ".join(filter(None, (told.reason, told.detail))),
        "Cache-Status": told.cache_status,
    }
    return {name: value for name, value in found.items() if value}


def answered_at(lookup: str, front_off: str | None) -> str:
    """Where hits of a route are answered, and what keeps them from the front."""
    where = "before routing" if lookup == "front" else "after its dependencies"
    return f"{where} ({front_off})" if front_off else where


def _copy(copy: StoredCopy) -> str:
    state = f"fresh for {copy.ttl} s" if copy.ttl > 0 else f"stale for {-copy.ttl} s"
    if not copy.usable:
        state = "purged or past all use"
    where = "Redis" if copy.tier == "l2" else "memory"
    varies = f", by {', '.join(copy.variant)}" if copy.variant else ""
    return (
        f"in {where}: status {copy.status}, {bytes_of(copy.size_bytes)}, {duration(copy.age)} old, {state}{varies}"
        f" (key {copy.key})"
    )


def _purged(purge: LastPurge | None, console: Console, never: str) -> Iterator[Text]:
    yield from field("last purge", Text(plain(never if purge is None else _in_words(purge))), console)


def _in_words(purge: LastPurge) -> str:
    """Of what, how, when, and by whom, as far as the log still has the line."""
    told = f"number {purge.seq}, {'soft' if purge.soft else 'hard'}, of {cut(purge.shown, _LONGEST)}"
    line = purge.line
    if line is None:
        return f"{told}; the log does not keep who made it any more"
    told += f", at {moment(line.at, '%Y-%m-%d %H:%M:%S')}"
    if line.origin:
        told += f", from {line.origin}"
    return f"{told}, trace {line.traceparent}" if line.traceparent else told
