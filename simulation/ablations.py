"""The protocol with one rule taken out, to see that the check sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from fastapi_cacheinval.core.log_types import LogEntry, Missed, Next, Page, Reply, Term
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.stored import Stamp

__all__ = ["ABLATIONS", "WHOLE", "Ablation"]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is left out; `harsh` is what the plan is set to, and `seed` where to begin, so that it is missed soon.

    Each other field but the first two is one of the shell's or the server's rules, where it holds.
    """

    name: str
    replica: type[Replica] = Replica
    harsh: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    nonces: bool = True
    l2_under_lease: bool = True
    stamped_at_end: bool = False
    waiters_check: bool = True
    refusal: bool = True
    deletes: bool = False
    whole: bool = True
    applied_first: bool = True
    young: bool = True
    confirms_heartbeats: bool = True
    confirms_purges: bool = True
    opens_terms: bool = False
    settles: bool = True

    def believes(self, line: LogEntry | None) -> bool:
        """Whether an answer that too few servers have confirmed is taken all the same."""
        return not (self.confirms_heartbeats if line is None else self.confirms_purges)


class NoLease(Replica):
    """Trusts that it has read the log, once it has."""

    __slots__ = ()

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        following = super().apply_reply(reply, sent, now, lease=lease)
        if self.lease_until > 0:
            self.lease_until = inf
        return following


class LeaseFromReceipt(Replica):
    """Counts the lease from when the reply came, not from when the request went."""

    __slots__ = ()

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        return super().apply_reply(reply, now, now, lease=lease)


class LeaseFromMessages(Replica):
    """Takes any message for a sign of life."""

    __slots__ = ()

    def apply_message(self, line: LogEntry, now: float) -> Next:
        self.lease_until = max(self.lease_until, now + self.bound)
        return super().apply_message(line, now)


class LeaseFromAnyPage(Replica):
    """Takes a lease although there is more to read."""

    __slots__ = ()

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        if isinstance(reply, Missed):
            reply = replace(reply, more=False)
        return super().apply_reply(reply, sent, now, lease=lease)


class GapsDoNotMatter(Replica):
    """Applies what comes, whatever is missing before it."""

    __slots__ = ()

    def apply_message(self, line: LogEntry, now: float) -> Next:
        if line.term == self.term and line.seq > self.applied + 1:
            self.applied = line.seq - 1
        return super().apply_message(line, now)


class AnyReply(Replica):
    """Follows a reply to another term whatever has been heard since it was asked for."""

    __slots__ = ()

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        self._told = -inf
        return super().apply_reply(reply, sent, now, lease=lease)


class OneRegister(Replica):
    """Keeps one number for a tag, that of its last purge of either kind."""

    __slots__ = ()

    def _apply(self, line: LogEntry, now: float) -> None:
        super()._apply(line, now)
        for tag in line.tags:
            if line.soft and tag in self.cells:
                self.cells[tag] = (-1, *self.cells[tag][1:])


class NoFences(Replica):
    """Waits for the number of its own purges."""

    __slots__ = ()

    def fence(self, tags: Iterable[str]) -> int:
        return super().fence(())


class NoGeneration(Replica):
    """Keeps what it has when the log begins anew."""

    __slots__ = ()

    def _forget_responses(self) -> None:
        self.changes += 1


class NoFloor(Replica):
    """Takes what it does not remember for never purged."""

    __slots__ = ()

    def stale_from(self, stamp: Stamp, tags: tuple[str, ...], now: float) -> float | None:
        return super().stale_from(stamp._replace(as_of=max(stamp.as_of, self.floor)), tags, now)


class AnyPage(Replica):
    """Learns a page whatever the log had when it was read."""

    __slots__ = ()

    def apply_page(self, page: Page, now: float) -> bool:
        return super().apply_page(page._replace(seq=self.applied), now)


class NoStamps(Replica):
    """Knows no numbers at all: what has not been deleted is good."""

    __slots__ = ()

    def adopt(self, term: Term, as_of: int, now: float) -> Stamp | None:
        return Stamp(self.generation, as_of, 0, -inf)

    def stale_from(self, stamp: Stamp, tags: tuple[str, ...], now: float) -> float | None:
        return inf


_LOSING_SERVERS = {"server_rate": 0.4, "relapses": 0.8, "processes": 5}
_LATE_REPLIES = {
    "confirm_replicas": 0,
    "slow": 0.5,
    "late_replies": True,
    "server_rate": 2.0,
    "relapses": 1.0,
    "processes": 4,
    "mutation_rate": 4.0,
    "read_rate": 20.0,
    "apart": True,
    "line_tags": 1000,
    "most_bytes": 100_000,
    "page_bytes": 1000,
}
_NEWCOMERS = {
    "crash_rate": 0.2,
    "doubled": 0.2,
    "read_rate": 3.0,
    "mutation_rate": 8.0,
    "base_delay": 0.02,
    "server_rate": 0.0,
    "most_lines": 4,
    "most_tags": 1000,
    "most_cells": 1000,
}

_PAGES = {"page_bytes": 1, "most_lines": 1000, "most_bytes": 100_000, "message_loss": 0.5, "mutation_rate": 8.0}
_YOUNG_TERMS = {**_LOSING_SERVERS, "purge_waits": 1.0, "mutation_rate": 8.0, "command_loss": 0.0}
_PIECES = {"line_tags": 1, "mutation_rate": 8.0, "command_loss": 0.0, "slow": 0.3}

_SPLITS = {"servers": 3, "confirm_replicas": 1, "server_rate": 1.0, "processes": 4, "apart": True, "pause_rate": 0.0}

_CALM_SPLITS = {
    **_SPLITS,
    "mutation_rate": 8.0,
    "read_rate": 40.0,
    "ttl": 20.0,
    "base_delay": 0.002,
    "slow": 0.0,
    "command_loss": 0.0,
    "crash_rate": 0.0,
    "cut_rate": 0.0,
    "evict_rate": 0.0,
    "full_rate": 0.0,
    "stall_rate": 0.0,
    "most_lines": 1000,
    "most_tags": 1000,
    "most_cells": 1000,
    "stale_when_disconnected": 0.0,
}

WHOLE = Ablation("the whole protocol")

ABLATIONS = (
    Ablation("no nonce", harsh=_LOSING_SERVERS, seed=10, nonces=False),
    Ablation("no lease", NoLease),
    Ablation("lease from the reply's arrival", LeaseFromReceipt, harsh={"slow": 0.1, "stall_rate": 0.1}, seed=15),
    Ablation("old replies open terms", AnyReply, harsh=_LATE_REPLIES, seed=440),
    Ablation("lease from messages", LeaseFromMessages),
    Ablation("lease from any page", LeaseFromAnyPage, harsh=_PAGES),
    Ablation("done with a purge's first line", harsh=_PIECES, whole=False),
    Ablation("said before it is applied", harsh={"purge_waits": 1.0}, applied_first=False),
    Ablation("all leases are known in a young term", harsh=_YOUNG_TERMS, young=False),
    Ablation("gaps do not matter", GapsDoNotMatter),
    Ablation("L2 without the lease", l2_under_lease=False),
    Ablation("one register for hard and soft", OneRegister),
    Ablation("no fence", NoFences),
    Ablation("no generation", NoGeneration),
    Ablation("no floor", NoFloor),
    Ablation("pages of any moment", AnyPage, harsh=_NEWCOMERS, seed=46),
    Ablation("as_of at the end of the fill", stamped_at_end=True),
    Ablation("waiters do not check", waiters_check=False),
    Ablation("a cut-off server goes on taking writes", harsh={"confirm_replicas": 0}, seed=20, refusal=False),
    Ablation("leases that are not confirmed", harsh=_SPLITS, confirms_heartbeats=False),
    Ablation("purges that are not confirmed", harsh=_SPLITS, confirms_purges=False),
    Ablation("fewer confirmations than a majority", harsh={**_SPLITS, "servers": 4, "confirm_replicas": 1}),
    Ablation("unconfirmed answers open terms", harsh=_CALM_SPLITS, opens_terms=True),
    Ablation("a term begins for a wait when it is opened", harsh={**_SPLITS, "purge_waits": 0.5}, settles=False),
    Ablation("delete and publish", NoStamps, deletes=True),
)
