"""Purges as `cacheinval tail` shows them: lines for people, or JSON lines."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import click
from rich.text import Text

from fastapi_cacheinval.cli.console import output
from fastapi_cacheinval.cli.numbers import duration, moment
from fastapi_cacheinval.cli.safe import as_json, cut, plain
from fastapi_cacheinval.core.events import Receipt, receipt_of
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.words import few

__all__ = ["Obeyed", "Printer", "what_of"]

_SHOWN = 5
_LONGEST = 60
_MOST_IN_JSON = 1_000
_NAMED = 8


class Obeyed(NamedTuple):
    """One replica's word on a purge: after how many seconds it obeyed it, None where it does not say.

    `late` says that a heartbeat brought it, and not its message.
    """

    name: str
    seconds: float | None
    late: bool


class Printer:
    """Writes to standard output, in colours on a terminal."""

    def __init__(self, *, as_json_: bool) -> None:
        self._as_json = as_json_
        self._console = output()

    def line(self, line: LogEntry) -> None:
        """One purge, or a piece of one that others follow."""
        receipt, trace = receipt_of(line), _trace(line)
        if self._as_json:
            event = {
                "event": "purge",
                "term": line.term.number,
                "seq": line.seq,
                "at": line.at,
                "soft": line.soft,
                "everything": receipt.everything,
                "tags": receipt.tags[:_MOST_IN_JSON],
                "paths": receipt.paths[:_MOST_IN_JSON],
                "tags_left_out": max(0, len(receipt.tags) - _MOST_IN_JSON),
                "origin": line.origin,
                "trace": trace,
                "complete": bool(line.purges),
            }
            click.echo(as_json(event))
            return
        when = moment(line.at)
        kind = ("soft", "yellow") if line.soft else ("hard", "red")
        told = Text.assemble((when, "dim"), f" {line.term.number}/{line.seq} ", kind, " ", (what_of(receipt), "bold"))
        if line.origin:
            told.append(f" from {plain(line.origin)}")
        if trace:
            told.append(f" trace {plain(trace)}", "dim")
        if not line.purges:
            told.append(" (more follows)", "dim")
        self._console.print(told, overflow="fold")

    def obeyed(self, line: LogEntry, replica: Obeyed) -> None:
        """One replica obeyed a purge; told at once to programs alone."""
        if self._as_json:
            event = {"event": "applied", "term": line.term.number, "seq": line.seq, **replica._asdict()}
            click.echo(as_json(event))

    def all_obeyed(self, line: LogEntry, replicas: list[Obeyed], silent: list[str]) -> None:
        """What became of a purge, for people: the slowest first, and of whom nothing is known."""
        if self._as_json:
            return
        slowest = sorted(replicas, key=lambda each: each.seconds or 0.0, reverse=True)
        told = Text.assemble(f"  {line.term.number}/{line.seq} ", ("applied", "green"), f" by {len(replicas)}: ")
        told.append(few(slowest, _NAMED, _after))
        if silent:
            told.append(f"; nothing heard of {few(silent, _NAMED, plain)}", "yellow")
        if replicas or silent:
            self._console.print(told, overflow="fold")


def _after(replica: Obeyed) -> str:
    how = " by heartbeat" if replica.late else ""
    return f"{plain(replica.name)} {duration(replica.seconds)}{how}"


def what_of(receipt: Receipt, nothing: str = "nothing") -> str:
    """The first tags and paths of a purge, and how many more there are; `nothing` where no tag is left of it."""
    if receipt.everything:
        return "everything"
    return few((*receipt.tags, *receipt.paths), _SHOWN, partial(cut, most=_LONGEST)) or nothing


def _trace(line: LogEntry) -> str:
    """The id of the trace that purged; empty where there is none."""
    parent = line.traceparent.split("-")
    return parent[1][:32] if len(parent) > 1 else ""
