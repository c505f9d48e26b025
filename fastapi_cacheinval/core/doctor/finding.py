"""One thing that was looked at: how it stands, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Level", "worst"]


class Level(Enum):
    """How bad it is.

    `ERROR` breaks a promise or the cache, `WARNING` may do so or costs much, `UNKNOWN` was not told.
    """

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


_ORDER = list(Level)


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names what was looked at, `found` says how it is, `cure` what to do; empty where all is well."""

    check: str
    level: Level
    found: str
    cure: str = ""


def worst(findings: list[Finding]) -> Level:
    """The worst of them; `OK` where there are none."""
    return max((each.level for each in findings), key=_ORDER.index, default=Level.OK)
