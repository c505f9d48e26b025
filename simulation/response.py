"""What is kept of a response here and in L2: what the protocol needs, and what only the truth knows."""

from __future__ import annotations

from typing import NamedTuple

from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.stored import Stamp

__all__ = ["Kept", "Shared"]


class Kept:
    """A stored response in the memory of a process.

    `fresh_until` is on the clock of the process. `began` (the true time), `step`, `version` of the row, and whether it
    is the process's `own` fill, are for the check alone.
    """

    __slots__ = ("began", "filler", "fresh_until", "key", "own", "stamp", "step", "tags", "verified", "version")

    def __init__(
        self,
        key: int,
        tags: tuple[str, ...],
        stamp: Stamp,
        fresh_until: float,
        *,
        began: float,
        step: int,
        version: int,
        filler: str,
        own: bool,
    ) -> None:
        self.key = key
        self.tags = tags
        self.stamp = stamp
        self.fresh_until = fresh_until
        self.verified = -1
        self.began = began
        self.step = step
        self.version = version
        self.filler = filler
        self.own = own

    def __repr__(self) -> str:
        whose = "its own" if self.own else f"{self.filler}'s"
        return f"key {self.key} ({whose} fill begun at {self.began:.6f}, as of {self.stamp.as_of}, v{self.version})"


class Shared(NamedTuple):
    """A stored response in L2; `ends` is when it is let go of, `fresh_until` the true time of its end as fresh."""

    term: Term
    as_of: int
    fresh_until: float
    ends: float
    began: float
    version: int
    filler: str
