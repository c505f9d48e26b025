"""What the searches find, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["Costs", "Finding", "Kind"]

Kind = Literal["leak", "outdated", "missing-tags", "unpurged"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: `where` names the route and what else tells it from others, `text` says it and the line to write."""

    kind: Kind
    where: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(slots=True)
class Costs:
    """What the searches did: counts, and `seconds` that the tests waited for them.

    `checked` are requests that were looked at, `asked` requests that were made again, `found` the faults. `unsteady`
    are pages that the app answers otherwise each time, `failed` are those that it does not answer, `overtaken` those
    that a mutation came in between; these three were not compared. `undecided` are rows whose tags could not be known,
    `rows` those whose tags were looked for on a page.
    """

    checked: int = 0
    asked: int = 0
    found: int = 0
    unsteady: int = 0
    failed: int = 0
    overtaken: int = 0
    undecided: int = 0
    rows: int = 0
    seconds: float = 0.0

    def add(self, other: Mapping[str, float]) -> None:
        """Add those of another process."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + other.get(each.name, 0))

    def as_dict(self) -> dict[str, float]:
        """By name, as another process takes them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __str__(self) -> str:
        said = f"{self.checked:,} requests checked, {self.asked:,} asked again in {self.seconds:.2f} s"
        said += f", {self.found} found"
        for name in ("unsteady", "failed", "overtaken", "undecided"):
            count = getattr(self, name)
            said += f", {count:,} {name}" if count else ""
        return said
