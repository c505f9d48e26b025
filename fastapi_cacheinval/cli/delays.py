"""When each replica obeyed a purge, put together from what their summaries tell one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi_cacheinval.cli.purge_lines import Obeyed, Printer
from fastapi_cacheinval.core.fleet import Fleet, SeenReplica, summaries_of
from fastapi_cacheinval.core.log_types import LogEntry

__all__ = ["Delays"]

# Of more purges at once the oldest are given up.
_MOST = 200
# Summaries that a replica may leave out before it counts as silent.
_SUMMARIES = 3
_LEAST = 3.0


@dataclass
class _Waiting:
    line: LogEntry
    since: float
    obeyed: dict[str, Obeyed] = field(default_factory=dict[str, Obeyed])
    missing: list[str] = field(default_factory=list[str])


class Delays:
    """Those of the purges that were shown last."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._waiting: dict[tuple[int, int], _Waiting] = {}

    @property
    def waiting(self) -> bool:
        """Whether any purge waits for the word of a replica."""
        return bool(self._waiting)

    def expect(self, line: LogEntry, now: float) -> None:
        """A purge was shown; the replicas have to obey it."""
        if not line.purges:
            return
        self._waiting[line.term.number, line.seq] = _Waiting(line, now)
        if len(self._waiting) > _MOST:
            self._finish(next(iter(self._waiting)))

    def look(self, fleet: Fleet, now: float) -> None:
        """Take what the replicas say now, and finish what all of them, or time, have ended."""
        every = max((each.every for each in summaries_of(fleet.live)), default=0.0)
        for key, waiting in list(self._waiting.items()):
            waiting.missing = [each.name for each in fleet.live if not self._heard(waiting, each)]
            if not waiting.missing or now - waiting.since > max(_LEAST, _SUMMARIES * every):
                self._finish(key)

    def give_up(self) -> None:
        """Finish all."""
        for key in list(self._waiting):
            self._finish(key)

    def _finish(self, key: tuple[int, int]) -> None:
        waiting = self._waiting.pop(key)
        self._printer.all_obeyed(waiting.line, list(waiting.obeyed.values()), waiting.missing)

    def _heard(self, waiting: _Waiting, replica: SeenReplica) -> bool:
        line, summary = waiting.line, replica.summary
        if replica.replica in waiting.obeyed or replica.name == line.origin:
            # The one that made it obeyed it before it answered.
            return True
        if summary is None:
            return False
        told = next((each for each in summary.applied if (each.term, each.seq) == (line.term.number, line.seq)), None)
        if told is not None:
            self._note(waiting, replica, Obeyed(replica.name, told.seconds, told.late))
            return True
        found = summary.statistics
        if (found.term, found.applied) >= (line.term.number, line.seq):
            # It has obeyed more since than a summary tells.
            self._note(waiting, replica, Obeyed(replica.name, None, late=False))
            return True
        return False

    def _note(self, waiting: _Waiting, replica: SeenReplica, obeyed: Obeyed) -> None:
        waiting.obeyed[replica.replica] = obeyed
        self._printer.obeyed(waiting.line, obeyed)
