"""The order in which the covers of a route run: that in which FastAPI would solve the same dependencies without them.

FastAPI solves a route's dependencies one after the other, and the first that refuses answers. The covers of a
`cached()` that stands first run before all others, so their own order decides who refuses: a brake on attempts has to
count before the check of a password, whichever field of the policy names it. Of several equal callables FastAPI calls
the first, and hands its value to all. So that one has to be the first here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi_cacheinval.dependencies import Cached, CachedInOrder
from fastapi_cacheinval.routes.dependency_tree import identity_of
from fastapi_cacheinval.routes.fastapi_private import Dependant

__all__ = ["order_covers"]

_Key = tuple[Any, frozenset[str], str]
# A call with what it is handed, which tells it from an equal one.
_Run = tuple[int, int, tuple[str, ...], str]
# By the id of a `cached()`'s node: what is solved before its call.
_Children = Mapping[int, Sequence[Dependant]]


def order_covers(dependant: Dependant) -> None:
    """Put the covers of each `cached()` below a route into the order of its tree; a second call changes nothing.

    Covers that stand nowhere else come first, in the order of declaration, or last where they need something of the
    tree. What a cover shares with an earlier part of the tree, or what gives it the value of an equal callable, is
    solved before it, under no name.
    """
    places = [*_places(dependant)]
    tree = _Tree(dependant, [cover for _, place in places for cover in _covers(place)])
    children: _Children = {id(place): tree.in_order(_covers(place)) for _, place in places}
    if tree.runs(children) != tree.wanted:
        led = {id(place): tree.with_leads(children[id(place)]) for _, place in places}
        if tree.runs(led) == tree.wanted:
            children = tree.without_needless(led)
    made: dict[int, Cached] = {}
    for above, place in places:
        now = children[id(place)]
        if [*map(_named_run, now)] != [*map(_named_run, place.dependencies)]:
            declared = _declared(place)
            names = [node.name or "" for node in _covers_in(now)]
            call = made.setdefault(id(declared), CachedInOrder(declared, names))
            # Others: a request may be on its way through the lists that were there.
            index = next(index for index, node in enumerate(above.dependencies) if node is place)
            above.dependencies[index] = replace(place, call=call, dependencies=[*now])


def _places(node: Dependant) -> Iterator[tuple[Dependant, Dependant]]:
    """The nodes of every `cached()`, each behind the one that it stands in, as FastAPI comes to them."""
    for child in node.dependencies:
        if isinstance(child.call, Cached):
            yield node, child
        else:
            yield from _places(child)


def _covers_in(nodes: Iterable[Dependant]) -> list[Dependant]:
    return [node for node in nodes if node.name is not None]


def _declared(place: Dependant) -> Cached:
    call: Any = place.call
    return call.declared if isinstance(call, CachedInOrder) else call


def _covers(place: Dependant) -> list[Dependant]:
    """The covers of a `cached()` in the order of declaration, without what was put before them."""
    names = [*_declared(place).__signature__.parameters]
    return sorted(_covers_in(place.dependencies), key=lambda node: names.index(node.name or ""))


def _run(node: Dependant) -> _Run:
    scopes = dict.fromkeys((*(node.parent_oauth_scopes or ()), *(node.own_oauth_scopes or ())))
    # Each look at a bound method makes another object.
    call: Any = getattr(node.call, "__func__", node.call)
    return id(call), id(getattr(node.call, "__self__", None)), tuple(scopes), identity_of(node)[2]


def _named_run(node: Dependant) -> tuple[str | None, _Run]:
    return node.name, _run(node)


class _Tree:
    """A route's tree without its `cached()`: what it solves, in this order, and what of that `covers` need."""

    def __init__(self, root: Dependant, covers: Sequence[Dependant]) -> None:
        self._root = root
        # The nodes as FastAPI comes to them, and as it is done with the first of each.
        self._met: dict[_Key, int] = {}
        self._done: dict[_Key, Dependant] = {}
        self._walk(root)
        self._needed = self._needs(covers)
        self.wanted = [_run(node) for key, node in self._done.items() if key in self._needed]

    def _walk(self, node: Dependant) -> None:
        for child in node.dependencies:
            if not isinstance(child.call, Cached):
                key = identity_of(child)
                self._met.setdefault(key, len(self._met))
                self._walk(child)
                self._done.setdefault(key, child)

    def _needs(self, nodes: Iterable[Dependant]) -> set[_Key]:
        """What is solved for some nodes once per request, these included, with what equal callables need."""
        found, looked_at, todo = set[_Key](), set[int](), [*nodes]
        while todo:
            node = todo.pop()
            if id(node) in looked_at:
                continue
            looked_at.add(id(node))
            todo += node.dependencies
            if node.use_cache:
                key = identity_of(node)
                found.add(key)
                todo += [self._done[key]] if key in self._done else []
        return found

    def in_order(self, covers: Sequence[Dependant]) -> list[Dependant]:
        """The covers of one `cached()` as the tree comes to them."""

        def place(cover: Dependant) -> tuple[int, int]:
            key = identity_of(cover)
            if key in self._met:
                return 1, self._met[key]
            return (0, 0) if self._met.keys().isdisjoint(self._needs([cover])) else (2, 0)

        return sorted(covers, key=place)

    def with_leads(self, covers: Sequence[Dependant]) -> list[Dependant]:
        """These covers, and before the first of them that is in the tree all that any cover needs until the last."""
        own = self._needs(covers)
        until = max((index for index, key in enumerate(self._done) if key in own), default=-1)
        leads = [
            replace(node, name=None, use_cache=True)
            for index, (key, node) in enumerate(self._done.items())
            if index <= until and key in self._needed
        ]
        first = sum(self._met.keys().isdisjoint(self._needs([cover])) for cover in covers)
        return [*covers[:first], *leads, *covers[first:]]

    def without_needless(self, children: _Children) -> dict[int, Sequence[Dependant]]:
        """The same without the leads that change nothing."""
        kept: dict[int, Sequence[Dependant]] = {**children}
        for place, nodes in children.items():
            for lead in nodes:
                fewer = [node for node in kept[place] if node is not lead]
                if lead.name is None and self.runs({**kept, place: fewer}) == self.wanted:
                    kept[place] = fewer
        return kept

    def runs(self, children: _Children) -> list[_Run]:
        """What is wanted, in the order in which FastAPI calls it with these children of the `cached()`."""
        done: dict[_Key, Dependant] = {}

        def solve(nodes: Sequence[Dependant]) -> None:
            for node in nodes:
                solve(children.get(id(node), node.dependencies))
                done.setdefault(identity_of(node), node)

        solve(self._root.dependencies)
        return [_run(node) for key, node in done.items() if key in self._needed and key in self._done]
