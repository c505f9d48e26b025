"""The line that an author has to write, for a route whose covers leave something uncovered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from inspect import isclass, isfunction, unwrap
from typing import Any

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.covers import Covers, Uncovered, reached
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.moves import Moves, moves
from fastapi_cacheinval.routes.partition_types import fields_of, is_a_mapping, says_its_type, unfit_for_a_key

__all__ = ["advice", "keyed", "spelled"]


def advice(root: Node, cached: Cached | None, found: Sequence[Uncovered], helpless: Sequence[str]) -> str:
    """Why the covers that are given fall short, and what to write.

    `helpless` is what no cover helps against, as `where: what`. The line that works comes last; it is left out where
    more has to be changed than these sentences say. Nothing here skips a check.
    """
    if cached is None or not (found or helpless):
        return ""
    covers = Covers.of(root, cached)
    reasons = [_reason(root, covers, each) for each in found] if covers.partitions or covers.guards else []
    unsolved = [each for each in found if not each.node.reused]
    if unsolved:
        names = ", ".join(spelled(each.node, root) for each in unsolved)
        return " ".join([*reasons, f"Declare {names} without use_cache=False, so that it is solved once per request."])
    moved = moves(root, cached, helpless)
    unnamed = dict.fromkeys(_without_a_name([each.node for each in found], root))
    first = [f"Make {name} once, give it a name, and write that name in both places." for name in unnamed]
    parts = [_instead_of_id(each.node) for each in found if each.unkeyed and each.taken]
    line = [] if moved.open else [f"This line works: cached(..., {_line(root, covers, cached, found, moved)})."]
    if not moved.open and not found and not moved.partitions and not moved.shared:
        # Nothing has to be added to the policy.
        line = []
    return " ".join([*reasons, *first, *moved.sentences, *filter(None, parts), *line])


def _reason(root: Node, covers: Covers, each: Uncovered) -> str:
    name = spelled(each.node, root)
    given = _given(root, covers)
    if not each.node.reused:
        return f"{given} falls short: {name} is solved once more, and may give another value."
    if each.skipped and not each.unkeyed:
        on = [spelled(node, root) for node in each.node.walk() if node is not each.node and covers.keeps(node)]
        fed = f"depends on {', '.join(dict.fromkeys(on))}, " if on else ""
        return f"{given} falls short: {name} {fed}may refuse the caller, and would not run on a hit."
    if each.taken and covers.guards_only(each.node):
        return f"{given} falls short: the value of {name} is used, and the value of a guard is in no cache key."
    return f"{given} falls short: it does not cover {name}."


def _given(root: Node, covers: Covers) -> str:
    return _fields([spelled(node, root) for node in covers.partitions], [spelled(node, root) for node in covers.guards])


def _line(root: Node, covers: Covers, cached: Cached, found: Sequence[Uncovered], moved: Moves) -> str:
    """`partition_by=..., guarded_by=...` with what is missing."""
    keys = cached.policy.partition_keys
    partitions = [
        spelled(node, root) if key is None else f"PartitionBy({spelled(node, root)}, key={_named_key(key)})"
        for node, key in zip(covers.partitions, keys, strict=False)
        if node.reused
    ]
    given = len(partitions)
    guards = {node.identity: spelled(node, root) for node in covers.guards}
    other: list[str] = []
    alone = len(found) == 1 and not guards and not any(covers.keeps(node) for node, _ in reached(root, cached))
    for each in found:
        name = spelled(each.node, root)
        if each.unkeyed and each.taken:
            guards.pop(each.node.identity, None)
            unfit = unfit_for_a_key(each.node.call)
            partitions.append(keyed(each.node, root) if unfit else name)
            if alone and not unfit and not says_its_type(each.node.call):
                other.append(keyed(each.node, root))
        else:
            guards[each.node.identity] = name
            if each.taken and alone and not moved.sentences:
                other.append(keyed(each.node, root))
    if len(partitions) == given and any("key=..." in each for each in partitions) and not moved.partitions:
        # What is there already stays, and a key without a name cannot be written down.
        partitions = []
    word = ["request_is_shared=True"] if moved.shared or cached.policy.request_is_shared else []
    fields = _fields([*partitions, *moved.partitions], [*dict.fromkeys(guards.values())])
    line = ", ".join([*([fields] if fields else []), *word])
    return f"{line}), or with a part of its value: cached(..., partition_by={other[0]}" if other else line


def _named_key(key: Any) -> str:
    name = getattr(key, "__name__", "<")
    return "..." if "<" in name else name


# What tells one user, tenant or account from another, the likeliest first.
_IDENTIFYING = ("id", "uuid", "pk", "user_id", "sub", "username", "login", "email", "credentials", "name")


def keyed(node: Node, root: Node) -> str:
    """A `PartitionBy` of a dependency, with a key that fits what it gives, as far as its annotation says that."""
    return f"PartitionBy({spelled(node, root)}, key={_key_for(node.call)})"


def _key_for(call: Any) -> str:
    if says_its_type(call) and not unfit_for_a_key(call):
        return "str"
    fields = fields_of(call)
    field = next((name for name in _IDENTIFYING if name in fields), "id")
    return f"lambda value: value[{field!r}]" if is_a_mapping(call) else f"lambda value: value.{field}"


def _instead_of_id(node: Node) -> str:
    fields = fields_of(node.call)
    if not fields or any(name in fields for name in _IDENTIFYING) or not unfit_for_a_key(node.call):
        return ""
    return (
        f"In place of id write what tells callers apart: {unfit_for_a_key(node.call)} has {', '.join(sorted(fields))}."
    )


def _fields(partitions: Sequence[str], guards: Sequence[str]) -> str:
    fields = {"partition_by": [*dict.fromkeys(partitions)], "guarded_by": [*dict.fromkeys(guards)]}
    return ", ".join(f"{field}={_tuple(names)}" for field, names in fields.items() if names)


def _tuple(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def spelled(node: Node, root: Node) -> str:
    """A dependency as its author writes it, with the security scopes and the exit that it is asked for."""
    call, scopes, leaves = node.identity
    name = _name(call, root)
    asked = [f"scopes={sorted(scopes)}"] if scopes else ["scope='function'"] if leaves == "function" else []
    asked += [] if node.reused else ["use_cache=False"]
    return f"{'Security' if scopes else 'Depends'}({', '.join([name, *asked])})" if asked else name


def _name(call: Any, root: Node) -> str:
    known = next(_names_of(call, root), None)
    if known is not None:
        return known
    while isinstance(call, partial):
        call = call.func
    owner = getattr(call, "__self__", None)
    if owner is not None and not isclass(owner):
        return f"{_name(owner, root)}.{call.__name__}"
    return str(getattr(call, "__name__", None) or f"{type(call).__name__}(...)")


def _without_a_name(nodes: Sequence[Node], root: Node) -> Iterator[str]:
    """What stands for dependencies that no name tells apart: objects made in place, two functions of one factory."""
    calls: list[Any] = [node.identity[0] for node in nodes]
    names = [_name(call, root) for call in calls]
    for call, name in zip(calls, names, strict=True):
        twins = [other for other, known in zip(calls, names, strict=True) if known == name and other is not call]
        made = not hasattr(call, "__name__") or call.__name__ == "<lambda>"
        if twins or (made and next(_names_of(call, root), None) is None):
            yield name


def _has_no_name(call: Any) -> bool:
    """Whether a callable's own name is none that its author could write: an object, a function made by another."""
    return not hasattr(call, "__name__") or (isfunction(call) and "<" in call.__qualname__)


def _names_of(call: Any, root: Node) -> Iterator[str]:
    """The names that objects without one of their own have in the modules of the route's functions."""
    if not _has_no_name(call):
        return
    for node in root.walk():
        bare: Any = unwrap(node.call) if callable(node.call) else node.call
        for name, value in getattr(bare, "__globals__", {}).items():
            if value is call:
                yield name
