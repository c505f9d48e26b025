"""What replicas and the purge log say to each other: lines, pages of what was purged, questions and replies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["AppliedByAll", "Ask", "Current", "LogEntry", "Missed", "Next", "Page", "Reply", "Reset", "Term"]


class Term(NamedTuple):
    """One life of the log: its number, and the nonce that opened it, without which numbers lie."""

    number: int
    nonce: str


class LogEntry(NamedTuple):
    """One line of the log: a purge, or a piece of one that has more tags than a line may have.

    `at` is the log's own time in seconds; `trace` is trace context to pass on; `prompt` says that somebody waits for
    every replica to have applied it, and `waiter` who is to be told. `purges` is how many purges end with this line:
    0 for a piece that others follow.
    `origin` is the process that wrote it, as host/pid; empty where that is not known. Do not trust it.
    """

    term: Term
    seq: int
    nonce: str
    tags: tuple[str, ...]
    soft: bool
    at: float
    trace: tuple[tuple[str, str], ...] = ()
    prompt: bool = False
    purges: int = 1
    waiter: str = ""
    origin: str = ""

    @property
    def traceparent(self) -> str:
        """The `traceparent` of what purged; empty where nobody recorded it."""
        return dict(self.trace).get("traceparent", "")


class AppliedByAll(NamedTuple):
    """The line with this nonce is applied by every replica but its writer that held a lease when it was written."""

    nonce: str


class Page(NamedTuple):
    """What the log remembers of tags purged by the lines over `down_to`, up to and including `up_to`.

    `purged` holds the tags whose last line of either kind is in that span: the tag, the number, whether it was soft.
    `seq` was the last line of all when this was read.
    """

    term: Term
    seq: int
    up_to: int
    down_to: int
    purged: tuple[tuple[str, int, bool], ...]


class Ask(NamedTuple):
    """What a heartbeat or a purge tells the log of this replica, so that the log can compare."""

    term: Term
    seq: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Current:
    """The log has nothing that the asker has not read."""

    term: Term


@dataclass(frozen=True, slots=True)
class Missed:
    """The lines after the asker's number, in order; up to the end of the log, unless there are `more`."""

    term: Term
    lines: tuple[LogEntry, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The asker's past and the log's do not meet: forget everything and go on from here."""

    term: Term
    seq: int
    nonce: str


Reply = Current | Missed | Reset


class Next(Enum):
    """What the shell does next."""

    NOTHING = "nothing"
    ASK = "ask the log now"
