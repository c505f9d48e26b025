"""The targets by which the front lookup finds a value: what they take, and what they share."""

from __future__ import annotations

from sys import getsizeof
from typing import cast

from fastapi_cacheinval.ports.store import Target

__all__ = ["bytes_of", "shared"]

# Parts of nearly every target: one object each, counted as nothing.
_WORDS = {word: word for word in ("", "GET", "HEAD", "http", "https")}


def shared(target: Target) -> Target:
    """The same target with one object for each common word in it."""
    return tuple([_WORDS.get(part, part) if isinstance(part, str) else part for part in target])


def _part(part: object) -> int:
    if isinstance(part, tuple):
        parts = cast("tuple[object, ...]", part)
        return getsizeof(parts) + sum(map(_part, parts))
    if isinstance(part, str):
        return 0 if _WORDS.get(part) is part else getsizeof(part)
    # One object serves all empty bytes, and the numbers in a target are small.
    return getsizeof(part) if isinstance(part, bytes) and part else 0


def bytes_of(targets: tuple[Target, ...]) -> int:
    """Bytes that a node's targets take, without their slots in the table of aliases."""
    return _part(targets) if targets else 0
