"""Which `cached()` counts, what its covers cover, and what a hit would skip.

A cover is a dependency that `partition_by` or `guarded_by` names: FastAPI runs it, with all it needs, before the
lookup. Two rules decide whether a route may be cached (docs/keys-and-route-inputs.md, "What a cover covers"):

- *Value*: what the handler is handed may depend on the caller only through the value of a partition, because that
  value is in the cache key. A guard's value is in no key, so a guard covers a dependency only where nothing takes it.
- *Check*: a dependency that depends on the caller may refuse them. It has to run on a hit as well, so it is a cover
  itself, or part of what a cover needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi_cacheinval.dependencies import (
    GUARD,
    PARTITION,
    Cached,
    Invalidates,
    InvalidatesNothing,
    collected_tags,
)
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.evidence import Cause, Evidence
from fastapi_cacheinval.routes.parameters import caller_reads, reads_for_all, tells_callers_apart

__all__ = ["Covers", "Uncovered", "adds_tags", "fed_by", "innermost", "is_fed", "purges_of", "reached", "uncovered"]


def innermost(root: Node) -> Cached | None:
    """The `cached()` that FastAPI runs last: those of apps, routers and includes come before the route's."""
    last: Cached | None = None
    for child in root.children:
        last = innermost(child) or last
        if isinstance(child.call, Cached):
            last = child.call
    return last


def adds_tags(root: Node) -> bool:
    """Whether the handler, or a dependency, adds tags of its own by `CacheTags`."""
    return any(node.call is collected_tags for node in root.walk())


def purges_of(root: Node) -> tuple[tuple[Invalidates, ...], bool]:
    """Every `invalidates()` that applies, and whether an `invalidates_nothing()` inside of all of them does.

    Apps, routers and routes come in this order, so that the innermost is the last.
    """
    found: dict[int, Invalidates] = {}
    only_reads = False
    for node in root.walk():
        call: Any = node.call
        if isinstance(call, Invalidates):
            found[id(call)] = call
            only_reads = False
        elif isinstance(call, InvalidatesNothing):
            found.clear()
            only_reads = True
    return tuple(found.values()), only_reads


@dataclass(frozen=True, slots=True)
class Covers:
    """The dependencies that one `cached()` runs before its lookup: those it names, and all that these need."""

    partitions: tuple[Node, ...]
    guards: tuple[Node, ...]
    _keyed: frozenset[object]
    _guarding: frozenset[object]
    _running: frozenset[object]

    @classmethod
    def of(cls, root: Node, cached: Cached | None) -> Covers:
        """The covers of the `cached()` that counts; none where there is none."""
        places = [node for node in root.walk() if cached is not None and node.call is cached]
        partitions = tuple(_named(places[0], PARTITION)) if places else ()
        guards = tuple(_named(places[0], GUARD)) if places else ()
        return cls(
            partitions,
            guards,
            _in_all([{each.identity for each in _named(place, PARTITION) if each.reused} for place in places]),
            _in_all([{each.identity for each in _named(place, GUARD) if each.reused} for place in places]),
            _in_all([{each.identity for each in place.walk()} for place in places]),
        )

    def keeps(self, node: Node) -> bool:
        """Whether the node's value is in the key.

        One that is solved anew each time (`use_cache=False`) may give another value than the cover's.
        """
        return node.reused and node.identity in self._keyed

    def guards_only(self, node: Node) -> bool:
        """Whether the node is a guard."""
        return node.reused and node.identity in self._guarding

    def runs(self, node: Node) -> bool:
        """Whether the node runs before the lookup, on every request."""
        return node.identity in self._running


def _named(place: Node, prefix: str) -> list[Node]:
    """The covers of one field in the order of declaration; they run in another, see `order_covers`."""
    found = [cover for cover in place.children if (cover.declares.name or "").startswith(prefix)]
    return sorted(found, key=lambda cover: int((cover.declares.name or "").removeprefix(prefix)))


def _in_all(sets: list[set[object]]) -> frozenset[object]:
    """What each place of the same `cached()` has: security scopes may differ by place."""
    if not sets:
        return frozenset()
    first, *others = sets
    return frozenset(first.intersection(*others))


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A dependency that a hit would skip, or whose value no key holds.

    - `node` is the one that the handler is handed, or that stands in a list of dependencies: to name it is enough.
    - `taken`: a parameter takes its value.
    - `skipped`: it would not run on a hit.
    - `unkeyed`: its value tells callers apart by more than the partitions do.
    """

    node: Node
    taken: bool
    skipped: bool
    unkeyed: bool

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What it reads of the caller."""
        own = caller_reads(self.node, handler=False)
        below = fed_by(self.node)
        fed = Evidence("dependency", f"depends on {', '.join(below)}", name=self.node.label)
        return (*own, fed) if below else own

    def trails(self, root: Node) -> tuple[str, ...]:
        """The ways from the handler through it to what reads the caller, by name."""
        to_it = next(_ways(root, lambda node: node is self.node), (root, self.node))
        below = _ways(self.node, lambda node: bool(caller_reads(node, handler=False)))
        return tuple(dict.fromkeys(" → ".join(each.label for each in (*to_it, *way[1:])) for way in below))


def _ways(node: Node, wanted: Callable[[Node], bool]) -> Iterator[tuple[Node, ...]]:
    """Each way from a node down to one that is wanted, both included; the cache's own markers are not named."""
    if wanted(node):
        yield (node,)
    for child in node.children:
        for way in _ways(child, wanted):
            yield way if node.ours else (node, *way)


def fed_by(node: Node) -> tuple[str, ...]:
    """What below a node reads the caller, as `name (what)`."""
    found = (read for child in node.children for each in child.walk() for read in caller_reads(each, handler=False))
    return tuple(dict.fromkeys(f"{read.name} ({read.what})" for read in found))


def is_fed(node: Node, cached: Cached | None) -> bool:
    """Whether a node, or anything below it that is no need of the `cached()` that counts, may ask who is calling."""
    if cached is not None and node.call is cached:
        return False
    return bool(caller_reads(node, handler=False)) or any(is_fed(child, cached) for child in node.children)


def uncovered(root: Node, cached: Cached | None) -> tuple[tuple[Uncovered, ...], tuple[Evidence, ...]]:
    """What the covers leave uncovered, and what no cover helps against.

    No cover helps against what the handler reads itself, and against fields of the response that a cover sets: they
    would be stored with it.
    """
    covers = Covers.of(root, cached)
    found: dict[object, Uncovered] = {}
    policy = None if cached is None else cached.policy
    shared = policy is not None and policy.request_is_shared
    varied = frozenset(() if policy is None else policy.vary)
    helpless = [*caller_reads(root, handler=True, varied=varied, request_is_shared=shared)]
    for node, taken in reached(root, cached):
        if covers.keeps(node) or (not taken and covers.guards_only(node)):
            continue
        unkeyed = _is_unkeyed(node, taken, cached, covers)
        skipped = is_fed(node, cached) and not covers.runs(node)
        if skipped or unkeyed:
            key = (node.identity, taken, node.reused)
            found.setdefault(key, Uncovered(node, taken, skipped, unkeyed))
    for each in root.walk():
        if cached is not None and each.call is cached:
            helpless += [written for cover in each.children for written in _writes(cover, shared)]
    # To name one of these would be refused as well.
    helpless += [written for each in found.values() for written in _writes(each.node, shared)]
    return tuple(found.values()), tuple(dict.fromkeys(helpless))


def reached(node: Node, cached: Cached | None) -> Iterator[tuple[Node, bool]]:
    """The dependencies of the handler and of its lists, each with whether a parameter takes its value.

    Those of a `cached()` that is inert count too; what it does with their values is nothing.
    """
    for child in node.children:
        if cached is not None and child.call is cached:
            continue
        if child.ours:
            yield from ((each, False) for each, _ in reached(child, cached))
        else:
            yield child, child.bound


def _is_unkeyed(node: Node, taken: bool, cached: Cached | None, covers: Covers) -> bool:  # noqa: FBT001
    """Whether a value may tell callers apart by more than the partitions' values, which the key holds."""
    if (cached is not None and node.call is cached) or covers.keeps(node):
        return False
    if not taken and covers.guards_only(node):
        return False
    shared = cached is not None and cached.policy.request_is_shared and (not taken or reads_for_all(node))
    if caller_reads(node, handler=False, request_is_shared=shared):
        return True
    return any(_is_unkeyed(child, child.bound and not node.ours, cached, covers) for child in node.children)


def _writes(cover: Node, request_is_shared: bool) -> Iterator[Evidence]:  # noqa: FBT001
    """What a cover, or anything that it needs, sets of the response; what it makes of a shared request is for all."""
    for node in cover.walk():
        name = node.declares.response_param_name
        shared = request_is_shared and not tells_callers_apart(node, request_is_shared=True)
        if name is not None and not shared:
            what = f"sets fields of the response that is stored, as {name!r}"
            yield Evidence("dependency", what, Cause.SETS, node.label)
