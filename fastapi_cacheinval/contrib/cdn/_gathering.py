"""Purges on their way to the CDNs before every replica is known to have applied them."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi_cacheinval import Receipt
from fastapi_cacheinval.contrib.cdn._entries import Entries, Order, collapse, entries_of, merge
from fastapi_cacheinval.contrib.cdn.keys import purge_of

__all__ = ["Gathered"]


@dataclass(slots=True)
class Gathered:
    """Purges as one: the tags of all, at most `most`, else everything, and the newest receipt.

    Who has applied the newest has applied them all: a log is read in order, and a later term gives up everything.
    """

    most: int
    entries: Entries = field(default_factory=Entries)
    newest: Receipt | None = None

    def add(self, receipt: Receipt, order: Order | None, *, lanes: int) -> int:
        """Take one more, which goes to so many CDNs; how many tags it has."""
        fresh = entries_of(purge_of(receipt), order)
        if order is not None:
            order.left += len(fresh) * lanes
        merge(self.entries, fresh)
        if len(self.entries) > self.most:
            collapse(self.entries)
        newest = self.newest
        if newest is None or (newest.term, newest.seq) < (receipt.term, receipt.seq):
            self.newest = receipt
        return len(fresh)
