"""How the line is written that names a route's covers: `partition_by=..., guarded_by=...`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.covers import Covers, Uncovered, reached
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.key_texts import KeyText, key_text
from fastapi_cacheinval.routes.misread import Misread
from fastapi_cacheinval.routes.moves import Moves
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.parameters import tells_callers_apart
from fastapi_cacheinval.routes.partition_types import says_something, unfit, unfit_for_a_key, value_type
from fastapi_cacheinval.routes.set_attributes import set_by

__all__ = ["covers_line", "fields_of", "key_for", "keyed", "partition_with_key"]


def covers_line(
    root: Node,
    names: Names,
    covers: Covers,
    cached: Cached,
    found: Sequence[Uncovered],
    moved: Moves,
    misread: Mapping[object, Misread],
) -> str:
    """`partition_by=..., guarded_by=...` with what is missing."""
    meant = _Meant(root, cached, found)
    given = [
        (meant.by(node), _given_partition(meant.by(node), key, root, names))
        for node, key in zip(covers.partitions, cached.policy.partition_keys, strict=False)
        # What is solved anew each time is replaced by the same under the same name.
        if node.identity not in misread and (node.reused or all(node.identity != each.node.identity for each in found))
    ]
    partitions = [text for _, text in given]
    in_place = {each.of.identity: each.written for each in misread.values() if each.written}
    kept = {node.identity for node, _ in given} - {node.identity for node in covers.partitions}
    guards = {meant.by(node).identity: names.spelled(meant.by(node)) for node in covers.guards}
    other: list[str] = []
    alone = len(found) == 1 and not guards and not any(covers.keeps(node) for node, _ in reached(root, cached))
    for each in found:
        name = names.spelled(each.node)
        if each.node.identity in kept:
            continue
        if each.unkeyed and each.taken:
            guards.pop(each.node.identity, None)
            kind = value_type(each.node, root)
            own = in_place.get(each.node.identity)
            partitions.append(own or (keyed(each.node, root, names) if unfit(kind) else name))
            if alone and not unfit(kind) and not says_something(kind):
                other.append(keyed(each.node, root, names))
        else:
            guards[each.node.identity] = name
            if each.taken and alone and not moved.sentences:
                other.append(keyed(each.node, root, names))
    word = ["request_is_shared=True"] if moved.shared or cached.policy.request_is_shared else []

    def written(partitions: Sequence[str], guards: Sequence[str]) -> str:
        fields = fields_of([*partitions, *moved.partitions], guards)
        return ", ".join([*([fields] if fields else []), *word])

    line = written(partitions, [*guards.values()])
    if not other:
        return line
    # A part of a value may stand in place of what that is made of, as far as it shows there who is calling.
    left = [text for node, text in given if not _stands_for(found[0].node, node)]
    return f"{line}), or with a part of its value: cached(..., {written([*left, other[0]], [])}"


class _Meant:
    """What an author means by a cover that the route runs in another scope alone: FastAPI would run both."""

    def __init__(self, root: Node, cached: Cached, found: Sequence[Uncovered]) -> None:
        self._own = {node.identity for each, _ in reached(root, cached) for node in each.walk()}
        self._found = {each.node.identity[:2]: each.node for each in found if each.node.reused}

    def by(self, cover: Node) -> Node:
        return cover if cover.identity in self._own else self._found.get(cover.identity[:2], cover)


def _stands_for(node: Node, below: Node) -> bool:
    if all(each.identity != below.identity for each in node.walk()):
        return False
    return tells_callers_apart(below)


def _given_partition(node: Node, key: Any, root: Node, names: Names) -> str:
    """A partition that is there already, with a key where the start would refuse it without one."""
    if key is not None:
        return f"PartitionBy({names.spelled(node)}, key={names.of_key(key)})"
    return keyed(node, root, names) if unfit_for_a_key(node.call) else names.spelled(node)


def keyed(node: Node, root: Node, names: Names) -> str:
    """A `PartitionBy` of a dependency, with a key that fits what it gives, as far as an annotation says that."""
    return f"PartitionBy({names.spelled(node)}, key={key_for(node, root).text})"


def key_for(node: Node, root: Node) -> KeyText:
    """The key that fits what a dependency gives, as far as an annotation and its code say that."""
    return key_text(value_type(node, root), set_by(node.call))


def partition_with_key(cover: Node, root: Node, names: Names, covers: Covers, keys: Sequence[Any]) -> str:
    """A `partition_by=...` in which this cover has a key that fits, and the others are as they are."""
    given = [
        keyed(node, root, names) if node is cover else _given_partition(node, key, root, names)
        for node, key in zip(covers.partitions, keys, strict=False)
    ]
    return fields_of(given, [])


def fields_of(partitions: Sequence[str], guards: Sequence[str]) -> str:
    """The fields of a policy that name them; empty where there are none."""
    fields = {"partition_by": [*dict.fromkeys(partitions)], "guarded_by": [*dict.fromkeys(guards)]}
    return ", ".join(f"{field}={_tuple(names)}" for field, names in fields.items() if names)


def _tuple(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"
