"""One life of a server, and what it writes."""

from __future__ import annotations

from typing import Any

from fastapi_cacheinval.core.log_types import LogEntry
from simulation.response import Shared
from simulation.server import LogServer

__all__ = ["REFUSED", "Node", "Refused", "Unconfirmed", "WrittenLine"]


class Refused:
    """A server's answer when it may not, or cannot, do what it is asked."""


REFUSED = Refused()


class Unconfirmed(tuple[Any, ...]):
    """What a server has said without the others, where that is looked at all the same."""

    __slots__ = ()


class WrittenLine(LogEntry):
    """A line, when it was written in truth, and how many others were to apply it, if that was known.

    Until the servers have confirmed it, it knows who has heard of it, and whether they had confirmed the term before.
    """

    written: float = 0.0
    pending: int = -1
    heard_by: list[Any] | None = None
    settled: bool = False


class Node:
    """One life of a server."""

    __slots__ = ("clock", "full_until", "l2", "log", "name", "refuses_from", "stalled_until", "up")

    def __init__(self, name: str, log: LogServer, l2: dict[int, Shared]) -> None:
        self.name = name
        self.log = log
        self.l2 = l2
        self.up = True
        self.refuses_from = float("inf")
        self.full_until = 0.0
        self.stalled_until = 0.0
        # Microseconds by which its clock is wrong.
        self.clock = 0
