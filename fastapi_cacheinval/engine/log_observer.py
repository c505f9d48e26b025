"""Telling of the lines that were applied: of which are another's, and of how long they took."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from fastapi_cacheinval.core.log_types import LogEntry, Term
from fastapi_cacheinval.engine.clocks import ClockEstimate

__all__ = ["MEANT", "Applies", "LogObserver", "Outage", "cause_of"]

logger = logging.getLogger("fastapi_cacheinval.bus")


class LogObserver(Protocol):
    """Hears what happens on the way between the log and the replica. No call awaits, raises or does I/O."""

    def applied(self, line: LogEntry, *, late: bool, seconds: float | None) -> None:
        """A line of somebody else was applied; `late` where its message had not come.

        `seconds` is how long that is after the log took it, as far as the log's clock is known.
        """
        ...

    def numbered(self, line: LogEntry) -> None:
        """A purge that had been queued has its number."""
        ...

    def reset(self, term: int, cause: str) -> None:
        """Everything that was kept had to be given up, because of what `cause_of` names."""
        ...

    def connection(self, *, connected: bool, cause: str = "") -> None:
        """The log is in touch from now on, or is not, because of this."""
        ...


MEANT = {
    "start": "this replica has joined the log",
    "new-term": "the log has begun anew",
    "behind": "more lines are missing than the log has kept",
    "conflict": "the log tells another story than it did",
}
"""Why everything is given up, in words."""


class Outage:
    """One time without the log, from when it was lost: said once when it is over."""

    def __init__(self, began: float) -> None:
        self._began = began
        # Whether everything was given up since.
        self.gave_up = False
        # Whether its end is told at WARNING, because its beginning was, or because it ends with a reset; else at DEBUG.
        self.said = False

    def log(self, now: float, delivered: int) -> None:
        """It is over, and so many queued purges have been written since it began."""
        seconds = now - self._began
        logger.log(
            logging.WARNING if self.said else logging.DEBUG,
            "in touch with the purge log again after %.1f s: %d queued purge(s) written; what was kept %s",
            seconds,
            delivered,
            "is given up" if self.gave_up else "stays in use",
            extra={
                "cacheinval.connected": True,
                "cacheinval.seconds": seconds,
                "cacheinval.delivered": delivered,
                "cacheinval.reset": self.gave_up,
            },
        )


def cause_of(before: Term, said: Term) -> str:
    """Which of the causes in `MEANT` it is: the replica was in the term `before`, and has heard of the term `said`."""
    if not before.number:
        return "start"
    if said.number > before.number:
        return "new-term"
    return "behind" if said == before else "conflict"


class Applies:
    """Tells a `LogObserver` of the lines of others that one follower applies.

    The message of an own purge may overtake the reply that says which line it is, so while purges are being written
    what is applied is told of a little later.
    """

    def __init__(self, observer: LogObserver, clock: ClockEstimate) -> None:
        self.clock = clock
        self._observer = observer
        self._writing = 0
        self._held: list[tuple[LogEntry, bool, float | None]] = []

    def tell(self, line: LogEntry, now: float, *, late: bool) -> None:
        """A line was applied now; a piece of a purge is told of with the line that ends it."""
        if not line.purges:
            return
        self._held.append((line, late, self.clock.since(line.at, now)))
        if not self._writing:
            self._tell_all()

    def _tell_all(self) -> None:
        held, self._held = self._held, []
        for line, late, seconds in held:
            self._observer.applied(line, late=late, seconds=seconds)

    @contextmanager
    def writing(self) -> Generator[None]:
        """An own purge is being written."""
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing:
                self._tell_all()

    def own(self, line: LogEntry) -> None:
        """This one was made here."""
        self._held = [told for told in self._held if told[0] != line]
