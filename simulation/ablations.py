"""The protocol with one rule taken out, to see that the check sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from fastapi_cacheinval.core.replica import Line, Replica, Reply, Term
from fastapi_cacheinval.core.stored import Stamp

__all__ = ["ABLATIONS", "WHOLE", "Ablation"]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is left out: each field but the first two is one of the shell's or the server's rules, where it holds."""

    name: str
    replica: type[Replica] = Replica
    nonces: bool = True
    l2_under_lease: bool = True
    stamped_at_end: bool = False
    waiters_check: bool = True
    refusal: bool = True
    deletes: bool = False


class NoLease(Replica):
    """Trusts that it has read the log, once it has."""

    __slots__ = ()

    def answered(self, reply: Reply, sent: float, now: float) -> object:  # type: ignore[override]
        following = super().answered(reply, sent, now)
        if self.lease_until > 0:
            self.lease_until = inf
        return following


class OneRegister(Replica):
    """Keeps one number for a tag, that of its last purge of either kind."""

    __slots__ = ()

    def _apply(self, line: Line, now: float) -> None:
        super()._apply(line, now)
        for tag in line.tags:
            if line.soft and tag in self.cells:
                self.cells[tag].hard = -1


class NoFences(Replica):
    """Waits for the number of its own purges."""

    __slots__ = ()

    def fence(self, tags: Iterable[str]) -> int:
        return super().fence(())


class NoStamps(Replica):
    """Knows no numbers at all: what has not been deleted is good."""

    __slots__ = ()

    def adopt(self, term: Term, as_of: int, now: float) -> Stamp | None:
        return Stamp(self.generation, as_of, 0, -inf)

    def hand_over(self, stamp: Stamp, tags: tuple[str, ...], now: float, *, own: bool = True) -> float | None:
        return inf


WHOLE = Ablation("the whole protocol")

ABLATIONS = (
    Ablation("no nonce", nonces=False),
    Ablation("no lease", NoLease),
    Ablation("L2 without the lease", l2_under_lease=False),
    Ablation("one register for hard and soft", OneRegister),
    Ablation("no fence", NoFences),
    Ablation("as_of at the end of the fill", stamped_at_end=True),
    Ablation("waiters do not check", waiters_check=False),
    Ablation("a cut-off server goes on taking writes", refusal=False),
    Ablation("delete and publish", NoStamps, deletes=True),
)
