"""The port of a purge log that several replicas share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple, Protocol

from fastapi_cacheinval.core.log_types import AppliedByAll, Ask, LogEntry, Page, Reply, Term
from fastapi_cacheinval.core.pieces import in_pieces

__all__ = ["Answer", "Proposal", "SharedLog", "Standing"]


class Proposal(NamedTuple):
    """A purge that is to be written, or a line of it: what `LogEntry` is without a number."""

    tags: tuple[str, ...]
    soft: bool
    trace: tuple[tuple[str, str], ...] = ()
    prompt: bool = False
    purges: int = 1

    def lines(self) -> Iterator[Proposal]:
        """The lines to write for it, in their order: the last one ends it, and tells of it."""
        written = 0
        for tags in in_pieces(self.tags):
            written += len(tags)
            last = written == len(self.tags)
            yield self._replace(tags=tags) if last else Proposal(tags, self.soft, purges=0)


class Answer(NamedTuple):
    """What the log says to a heartbeat or a line; `line` is that as it was written, `at` the log's time.

    `pending` counts the other replicas that hold a lease. Once they have applied a line that somebody waits for, an
    `AppliedByAll` is sent. None: there will be no such message.
    """

    reply: Reply
    line: LogEntry | None
    at: float = 0.0
    pending: int | None = None


class Standing(NamedTuple):
    """How many replicas with a live lease have not applied a line, and how many have.

    `young` says that the term has just begun: somebody may hold a lease of the term before, and counts as behind.
    `bound` is the longest of all leases that are known of, in seconds. `least` is how far the last of the replicas has
    read, at most to the line itself; -1 where that is not known.
    """

    behind: int
    there: int
    young: bool
    bound: float
    least: int

    def of(self, seq: int) -> Standing:
        """What this says of the same line, or of one before it in the same term."""
        if self.young or not self.behind or self.least < seq:
            return self
        return self._replace(behind=0, there=self.there + self.behind)


class SharedLog(Protocol):
    """The log as one event loop reaches it.

    Every call that waits is bounded in time, and raises `LogUnavailable`, and nothing else, where the log cannot be
    reached or refuses.
    """

    async def run(
        self,
        ask: Ask,
        replica: str,
        purge: Proposal | None = None,
        *,
        lines: bool = True,
        waiter: str = "",
        applied: Sequence[LogEntry] = (),
    ) -> Answer:
        """Compare what was read with the log, and write a line if there is one, in one step.

        `replica` is the id under which the caller takes a lease, empty for who takes none. Who keeps nothing wants no
        `lines`, and is told where the log ends. Where it raises, the line may have been written all the same.
        `waiter` is the replica to tell once all others have applied the line. `applied` are lines with a waiter: a
        heartbeat tells that the caller has applied them.
        """
        ...

    def messages(self, replica: str, *, lines: bool = True) -> AsyncIterator[LogEntry | AppliedByAll | None]:
        """Lines as they are published, and None whenever a subscription has begun; ends by raising.

        An `AppliedByAll` for a line of this replica comes as well. Without `lines` the lines do not come.
        """
        ...

    async def page(self, term: Term, up_to: int) -> Page | None:
        """What is remembered of tags purged by `up_to` and before, newest first; None in another term."""
        ...

    async def behind(self, line: LogEntry) -> Standing:
        """How the replicas stand to a line."""
        ...

    async def leave(self, replica: str) -> None:
        """Have nobody wait for a replica that has given up its lease."""
        ...

    async def close(self) -> None:
        """Let go of connections; never raises."""
        ...
