"""What the model of the server keeps and says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["Answer", "Member", "PageAnswer", "State", "Written"]

# A tag as the server keeps it: whether its last purge here was soft, and the tag; in the order of equal scores.
Member = tuple[bool, Any]


class Answer(NamedTuple):
    """The script's reply: 0 nothing new, 1 the missed messages, of which there are `more`, 2 start anew from `seq`.

    The caller's own line is not among them. `pending` others have a lease and are to apply that; -1 where it is not
    known who they are, or nobody waits. `widest` is the longest bound of a lease that is known of, in microseconds.
    """

    verdict: int
    term: int
    term_nonce: str
    seq: int
    nonce: str
    at: int
    missed: tuple[Any, ...]
    more: bool
    pending: int
    widest: int


class PageAnswer(NamedTuple):
    """A page of purged tags, newest first, each with the number of its line; nothing below `floor` is known."""

    floor: int
    seq: int
    members: tuple[tuple[Member, int], ...]


class Written(NamedTuple):
    """The parts of one line."""

    term: int
    term_nonce: str
    seq: int
    nonce: str
    at: int
    payload: Any


@dataclass(slots=True)
class State:
    """The hash `state`."""

    term: int
    term_nonce: str
    seq: int
    nonce: str
    run: str
    floor: int
    mark: int
    marked: int
    life: int
    opened: int
    pruned: int
    settled: bool = False
    # The last lines of full eighths, and the size of what is in the next one.
    eighths: tuple[int, ...] = ()
    filled: int = 0
    # The longest bound of a lease that anybody knows of, in microseconds.
    widest: int = 0
