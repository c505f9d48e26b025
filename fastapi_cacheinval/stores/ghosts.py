"""Keys that were let go of lately, as fingerprints: one that comes back soon was let go of too early."""

from __future__ import annotations

from array import array
from sys import getsizeof

__all__ = ["Ghosts"]

_LOW = 0xFFFF_FFFF
_FEWEST = 64


class Ghosts:
    """A lossy record of the last evictions: eight bytes each, in a table that overwrites.

    A slot holds 32 bits of the key's hash and the number of its eviction. Forgetting one, or taking a
    stranger for one (once in 2**32 / slots), costs a place in the wrong queue and nothing else.
    """

    __slots__ = ("_count", "_mask", "_slots")

    def __init__(self) -> None:
        self.clear()

    @property
    def size_bytes(self) -> int:
        """Bytes of the table."""
        return getsizeof(self._slots)

    def clear(self) -> None:
        """Forget all."""
        self._slots = array("Q", bytes(8 * _FEWEST))
        self._mask = _FEWEST - 1
        self._count = 0

    def add(self, key: bytes) -> None:
        """Remember that a key was let go of."""
        self._count = count = (self._count + 1) & _LOW
        mark = hash(key) & _LOW
        self._place(mark << 32 | count)

    def _place(self, slot: int) -> None:
        # In the older of two neighbours: with one place for each, keys used in turn would lose the same ones each time.
        slots, place, count = self._slots, slot >> 32 & self._mask, self._count
        if (count - slots[place]) & _LOW < (count - slots[place ^ 1]) & _LOW:
            place ^= 1
        slots[place] = slot

    def take(self, key: bytes, reach: int) -> bool:
        """Whether a key is among the last `reach` that were let go of; it is forgotten with the answer."""
        mark = hash(key) & _LOW
        place = mark & self._mask
        if self._slots[place] >> 32 != mark:
            place ^= 1
        slot = self._slots[place]
        if slot >> 32 != mark or not slot:
            return False
        self._slots[place] = 0
        return (self._count - slot) & _LOW < reach

    def hold(self, kept: int) -> None:
        """Make the table large enough for what goes with `kept` responses; amortised, it costs nothing."""
        if kept <= self._mask:
            return
        old = self._slots
        slots = 2 * len(old)
        while slots <= kept:
            slots *= 2
        self._mask = slots - 1
        self._slots = array("Q", bytes(8 * slots))
        for slot in old:
            if slot:
                self._place(slot)
