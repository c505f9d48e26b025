"""Where reading begins in a partition that has no usable offset, and whether events were lost there."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_cacheinval.contrib.kafka.settings import Reset

__all__ = ["Placed", "placed"]

# Up to so many records, of which none is gone, are read from the first rather than purged for.
_FEW = 10_000


@dataclass(frozen=True, slots=True)
class Placed:
    """Read from `offset` on; `lost` says what was, in words, where everything has to be purged first."""

    offset: int
    lost: str | None = None


def placed(committed: int | None, low: int, high: int, reset: Reset) -> Placed:
    """Decide by the group's offset, if there is one, and by the first and the next offset of the partition.

    `high` was asked for before what is purged is purged: what is written later is read.
    """
    if committed is not None:
        if committed < low:
            return Placed(low, f"{low - committed} record(s) were deleted before they were read")
        if committed > high:
            return Placed(low, f"the partition ends at {high}, before what was read already: it was made anew")
        return Placed(committed)
    whole = low == 0
    if whole and (reset == "earliest" or high <= _FEW):
        return Placed(0)
    if reset == "earliest":
        return Placed(low, f"the group has no offset, and the first {low} record(s) are deleted")
    return Placed(high, f"the group has no offset, and {high} record(s) were written")
