"""What the containers of Python hold that a callable holds on to, each member by its place; nothing of it runs."""

from __future__ import annotations

from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import MappingProxyType
from typing import Any

from fastapi_cacheinval.routes.held_objects import KEY, Detail, Held, plain_of, qualified_name, whose

__all__ = ["opened"]

# Of more than this, all containers of one object together, the first count, and how many there are of each.
_MOST_MEMBERS = 10_000


def opened(held: Iterable[Held], detail: Detail) -> Iterator[Held]:
    """What is held, with what containers hold in their place, whatever their depth; all as it is without `code`.

    A container is a tuple, a list, a mapping, a set or a deque. What it is, and how many members it has, is a member of
    its own.
    """
    waiting = [*held][::-1]
    seen: dict[int, object] = {}
    count = 0
    while waiting:
        name, value = waiting.pop()
        members = _members_of(value) if detail.code else None
        if members is None:
            yield name, value
            continue
        if id(value) in seen:
            continue
        # It is held for as long as its address stands for it.
        seen[id(value)] = value
        yield name, f"{qualified_name(value)} of {len(members)}"
        if whose(type(value)) != "python's":
            # It has attributes beside its members.
            yield name, value
        waiting += [(f"{name}[{place}]", member) for place, member in members[: _MOST_MEMBERS - count]][::-1]
        count = min(_MOST_MEMBERS, count + len(members))


def _members_of(value: object) -> list[tuple[str, object]] | None:
    """What a container holds, by place; None for anything else. Sets and mappings have an order of their own here.

    A library's own container is its state, as `ClassManager` of SQLAlchemy's on each class that is mapped.
    """
    if isinstance(value, Enum) or whose(type(value)) == "a library's":
        return None
    for kind, members in _CONTAINERS:
        if isinstance(value, kind):
            return members(kind, value)
    if isinstance(value, ChainMap | UserDict | UserList):
        # These are written in Python, around containers.
        own: dict[str, object] = vars(value)
        return [*own.items()]
    return None


def _numbered(kind: Any, value: object) -> list[tuple[str, object]]:
    return [(str(index), member) for index, member in enumerate(kind.__iter__(value))]


def _of_mapping(kind: Any, value: object) -> list[tuple[str, object]]:
    placed = sorted(((_word(key), key, member) for key, member in kind.items(value)), key=lambda each: each[0])
    members = [(word, member) for word, _, member in placed]
    return [*members, *((f"{word} itself", key) for word, key, _ in placed if plain_of(key, KEY) is None)]


def _of_set(kind: Any, value: object) -> list[tuple[str, object]]:
    members = sorted(((_word(each), each) for each in kind.__iter__(value)), key=lambda each: each[0])
    return [("", member) for _, member in members]


def _word(thing: object) -> str:
    """A key of a mapping or a member of a set, in text that is the same in every process."""
    plain = plain_of(thing, KEY)
    return qualified_name(thing) if plain is None else plain.decode("latin-1")


# Asked by their own methods, whatever a class of the author's has in the place of these.
_CONTAINERS: tuple[tuple[Any, Callable[[Any, object], list[tuple[str, object]]]], ...] = (
    (tuple, _numbered),
    (list, _numbered),
    (deque, _numbered),
    (set, _of_set),
    (frozenset, _of_set),
    (dict, _of_mapping),
    (MappingProxyType, _of_mapping),
)
