"""What is to be told of each tag, and how two such things become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastapi_cacheinval.contrib.cdn.requests import Purge

__all__ = ["EVERYTHING", "Entries", "Entry", "Order", "collapse", "entries_of", "merge", "settled"]

EVERYTHING = ""
"""Stands among the tags for everything: no tag is empty."""


class Order:
    """Somebody who waits for a purge; `left` are the tags of it that are not confirmed yet, at all CDNs together."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be told of one tag: `count` purges of the cache are in it, `orders` wait for it.

    `again` where it is to be told once more some time after it was confirmed.
    """

    soft: bool
    count: int = 1
    orders: tuple[Order, ...] = ()
    again: bool = True

    def merged(self, other: Entry) -> Entry:
        """Both as one."""
        return Entry(
            self.soft and other.soft,
            self.count + other.count,
            (*self.orders, *other.orders),
            self.again or other.again,
        )


Entries = dict[str, Entry]


def entries_of(purge: Purge, order: Order | None = None) -> Entries:
    """One purge as entries."""
    orders = () if order is None else (order,)
    tags = (EVERYTHING,) if purge.everything else purge.tags
    return {tag: Entry(purge.soft, orders=orders) for tag in tags}


def merge(into: Entries, more: Mapping[str, Entry]) -> None:
    """Add entries; what a purge of everything does as well is left to it."""
    for tag, entry in more.items():
        known = into.get(tag)
        into[tag] = entry if known is None else known.merged(entry)
    whole = into.get(EVERYTHING)
    if whole is None:
        return
    for tag in [tag for tag, entry in into.items() if tag != EVERYTHING and (entry.soft or not whole.soft)]:
        whole = whole.merged(_as_soft_as(whole, into.pop(tag)))
    into[EVERYTHING] = whole


def _as_soft_as(whole: Entry, entry: Entry) -> Entry:
    return Entry(whole.soft, entry.count, entry.orders, entry.again)


def collapse(entries: Entries) -> None:
    """Make one entry for everything out of all: soft only if each of them is."""
    whole = Entry(soft=all(entry.soft for entry in entries.values()), count=0, again=False)
    for entry in entries.values():
        whole = whole.merged(entry)
    entries.clear()
    entries[EVERYTHING] = whole


def settled(orders: Iterable[Order]) -> list[Order]:
    """Cross each off once, and say which have nothing left."""
    done: list[Order] = []
    for order in orders:
        order.left -= 1
        if order.left == 0:
            done.append(order)
    return done
