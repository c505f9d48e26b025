"""Values of subclasses of `str`, `int`, `bytes`, `tuple` and `UUID`, as what they inherit.

A subclass may keep more than what it inherits, as in `class User(str): role: str`. Two such values may be equal as
texts, and yet be two callers.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from functools import lru_cache
from types import MemberDescriptorType
from typing import Any, cast
from uuid import UUID

__all__ = ["PLAIN", "exactly", "inherited_type"]

PLAIN: tuple[type, ...] = (str, int, bytes, tuple, UUID)
"""The types whose subclasses may be parts of a cache key."""

_EXACT = frozenset({*PLAIN, bool, type(None)})


def exactly(value: object) -> object:
    """The value itself where it is of no subclass, else the value of the base class that it is equal to.

    Another type than those of `PLAIN` is given back as it is. Raises `ValueError` for a value that keeps more than it
    inherits, or whose class cannot be found under its name, so that another class may have the same name.
    """
    kind: type[Any] = type(value)
    if kind in _EXACT:
        return value
    base = inherited_type(kind)
    if base is None:
        return value
    if not _is_found(cast("Hashable", kind)) or _keeps_more(value, base):
        raise ValueError("it may keep more than it inherits")
    plain = _as(base, value)
    # A subclass that says otherwise is not what it inherits.
    if not (plain == value and value == plain and hash(plain) == hash(value)):
        raise ValueError("it is not equal to what it inherits")
    return plain


def inherited_type(kind: type) -> type | None:
    """The type of `PLAIN` that a class is or inherits from; None for other classes."""
    return next((each for each in PLAIN if issubclass(kind, each)), None)


def _as(base: type, value: Any) -> object:
    """What a value inherits, past what its own class makes of it."""
    if base is str:
        # Where its own methods raise, nothing is certain of it.
        value.encode("utf-8", "surrogatepass")
        return str.__str__(value)
    if base is int:
        return int.__index__(value)
    if base is bytes:
        return b"".join((memoryview(value),))
    if base is tuple:
        return (*cast("Any", tuple).__iter__(value),)
    return UUID(int=value.int)


@lru_cache(maxsize=1024)
def _is_found(kind: Hashable) -> bool:
    """Whether a class is what its module has under its name: each process then means the same by the name."""
    named = cast("type[Any]", kind)
    found: Any = sys.modules.get(named.__module__)
    for name in named.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def _keeps_more(value: object, base: type) -> bool:
    """Whether a value has attributes of its own."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = None
    return bool(own) or any(_is_set(slot, value) for slot in _slots(type(value), base))


def _slots(kind: type, base: type) -> Iterator[MemberDescriptorType]:
    for each in kind.__mro__:
        if not issubclass(base, each):
            yield from (member for member in vars(each).values() if isinstance(member, MemberDescriptorType))


def _is_set(slot: MemberDescriptorType, value: object) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True
