"""Which `cached()` counts, what its covers cover, and what they leave uncovered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi_cacheinval.dependencies import GUARD, PARTITION, Cached
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.parameters import caller_reads

__all__ = ["innermost", "uncovered"]


def innermost(root: Node) -> Cached | None:
    """The `cached()` that FastAPI runs last: those of apps, routers and includes come before the route's."""
    last: Cached | None = None
    for child in root.children:
        last = innermost(child) or last
        if isinstance(child.call, Cached):
            last = child.call
    return last


@dataclass(frozen=True, slots=True)
class _Covers:
    """The nodes that one `cached()` runs before its lookup, by what becomes of their value."""

    partitions: tuple[object, ...]
    guards: tuple[object, ...]

    @classmethod
    def of(cls, root: Node, cached: Cached | None) -> _Covers:
        places = [node for node in root.walk() if cached is not None and node.call is cached]
        return cls(_everywhere(places, PARTITION), _everywhere(places, GUARD))

    def covers(self, node: Node) -> bool:
        """Whether the node's value is in the key, or has no use but to let the request pass.

        One that is solved anew each time (`use_cache=False`) may give another value than the cover's.
        """
        if not node.reused:
            return False
        return node.identity in self.partitions or (not node.bound and node.identity in self.guards)


def _everywhere(places: list[Node], prefix: str) -> tuple[object, ...]:
    """The covers that each place of the same `cached()` runs: security scopes may differ by place."""
    found = [
        [cover.identity for cover in place.children if cover.reused and _name(cover).startswith(prefix)]
        for place in places
    ]
    return tuple(identity for identity in found[0] if all(identity in rest for rest in found)) if found else ()


def _name(node: Node) -> str:
    return node.declares.name or ""


def uncovered(root: Node, cached: Cached | None) -> tuple[str, ...]:
    """What reads the caller and is reached from the handler without passing a cover, as `where: what`.

    The lookup's own covers run on every request and are trusted there; a cover says nothing of its
    sub-dependencies where they are reached by another way, nor of its siblings.
    """
    return tuple(dict.fromkeys((*caller_reads(root, handler=True), *_below(root, cached, _Covers.of(root, cached)))))


def _writes(cover: Node) -> Iterator[str]:
    """What below a cover sets fields of the response: they are stored with it, whoever they were meant for."""
    for node in cover.walk():
        name = node.declares.response_param_name
        if name is not None:
            yield f"dependency {node.label}: sets fields of the response that is stored, as {name!r}"


def _below(node: Node, cached: Cached | None, covers: _Covers) -> Iterator[str]:
    for child in node.children:
        if cached is not None and child.call is cached:
            for cover in child.children:
                yield from _writes(cover)
            continue
        if covers.covers(child):
            yield from _writes(child)
            continue
        yield from caller_reads(child, handler=False)
        yield from _below(child, cached, covers)
