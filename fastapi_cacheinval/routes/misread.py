"""What stands in a partition in place of a `PartitionBy`: its key, or the type that the handler is given.

FastAPI takes each for a dependency of its own, and makes what it wants of the query or the body: a route with one
answers 422, or lets clients say who they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isclass
from typing import Any

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.covers import Covers, reached
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.parameters import tells_callers_apart
from fastapi_cacheinval.routes.partition_types import classes_of, value_type

__all__ = ["Misread", "misread_in"]


@dataclass(frozen=True, slots=True)
class Misread:
    """One such cover: what it is, the condition under which it goes, and the partition in its place if it is a key."""

    cover: Node
    of: Node
    told: str
    unless: str = ""
    written: str = ""


def misread_in(root: Node, cached: Cached | None) -> dict[object, Misread]:
    """Each by its identity; none where the handler is handed nothing of which it could be the key or the type."""
    covers = Covers.of(root, cached)
    if cached is None or not covers.partitions:
        return {}
    handed = [node for node, taken in reached(root, cached) if taken and tells_callers_apart(node)]
    known = {node.identity for node, _ in reached(root, cached)}
    alone = {
        cover: key
        for cover, key in zip(covers.partitions, cached.policy.partition_keys, strict=False)
        if cover.identity not in known and not cover.children
    }
    if not (handed and alone):
        # To find names takes a look at many modules: most routes need none.
        return {}
    names = Names(root)
    return {
        each.cover.identity: each for cover, key in alone.items() for each in _read(cover, key, handed, names, root)
    }


def _read(cover: Node, key: Any, handed: list[Node], names: Names, root: Node) -> Iterator[Misread]:
    """What a cover was meant to be, if it is misread."""
    call, name = cover.call, names.spelled(cover)
    kinds = [(node, classes_of(value_type(node, root))) for node in handed]
    if isclass(call):
        of = next((node for node, classes in kinds if call in classes), None)
        if of is not None:
            told = f"partition_by={name} is a dependency of its own, which FastAPI makes of the request: name"
            own = names.of_key(key)
            written = "" if own == "..." else f"PartitionBy({names.spelled(of)}, key={own})"
            yield Misread(cover, of, f"{told} {names.spelled(of)}, which gives the {name}.", written=written)
        return
    if key is not None:
        return
    query = [field.name for field in cover.declares.query_params if field.field_info.is_required()]
    if getattr(call, "__name__", "") == "<lambda>" and query:
        told = _a_key(f"lambda {', '.join(query)}: ...", query[0], "the query", names.spelled(handed[0]))
        yield Misread(cover, handed[0], told, unless="the lambda is meant as a key")
    for field in cover.declares.body_params:
        taken = classes_of(field.field_info.annotation)
        of = next((node for node, classes in kinds if any(each in classes for each in taken)), None)
        if of is not None:
            told = _a_key(name, field.name, "the body", names.spelled(of))
            yield Misread(cover, of, told, written=f"PartitionBy({names.spelled(of)}, key={name})")
            return


def _a_key(cover: str, parameter: str, source: str, of: str) -> str:
    return (
        f"partition_by={cover} is a dependency of its own, which takes its {parameter!r} from {source}. A function of "
        f"what {of} gives is the key of a PartitionBy."
    )
