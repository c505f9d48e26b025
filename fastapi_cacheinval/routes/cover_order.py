"""The order in which the covers of a route run: that in which FastAPI would solve the same dependencies without them.

FastAPI solves a route's dependencies one after the other, and the first that refuses answers. The covers of a
`cached()` that stands first run before all others, so their own order decides who refuses: a brake on attempts has to
count before the check of a password, whichever field of the policy names it. Of several equal callables FastAPI calls
the first, and hands its value to all. So that one has to be the first here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from fastapi_cacheinval.dependencies import Cached, CachedInOrder
from fastapi_cacheinval.routes.dependency_tree import asked, identity_of, is_reused
from fastapi_cacheinval.routes.fastapi_private import Dependant, exit_of

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

    A cover runs in place of the dependency that it names. So of what both need with `use_cache=False` the one that
    comes later takes the value of the other: each call is made as often as without the cover.
    """
    places = [*_places(dependant)]
    if not any(place.dependencies for place in places):
        return
    tree = _Tree(dependant, [cover for place in places for cover in _covers(place)])
    children: _Children = {id(place): tree.in_order(_covers(place)) for place in places}
    if tree.runs(children) != tree.wanted:
        led = {id(place): tree.with_leads(children[id(place)]) for place in places}
        if tree.runs(led) == tree.wanted:
            children = tree.without_needless(led)
    for index, node in enumerate(_Solving(tree, children).nodes):
        if dependant.dependencies[index] is not node:
            # Another: a request may be on its way through the one that was there.
            dependant.dependencies[index] = node


def _places(node: Dependant) -> Iterator[Dependant]:
    """The nodes of every `cached()`, as FastAPI comes to them."""
    for child in node.dependencies:
        if isinstance(child.call, Cached):
            yield child
        else:
            yield from _places(child)


def _covers_in(nodes: Iterable[Dependant]) -> list[Dependant]:
    return [node for node in nodes if node.name is not None]


def _declared(place: Dependant) -> Cached:
    call: Cached = cast("Any", place.call)
    return call.declared


def _covers(place: Dependant) -> list[Dependant]:
    """The covers of a `cached()` in the order of declaration, without what was put before them."""
    names = [*_declared(place).__signature__.parameters]
    return sorted(_covers_in(place.dependencies), key=lambda node: names.index(node.name or ""))


def _run(node: Dependant) -> _Run:
    scopes = dict.fromkeys((*(node.parent_oauth_scopes or ()), *(node.own_oauth_scopes or ())))
    # Each look at a bound method makes another object.
    call: Any = getattr(node.call, "__func__", node.call)
    return id(call), id(getattr(node.call, "__self__", None)), tuple(scopes), exit_of(node)


def _named_run(node: Dependant) -> tuple[str | None, _Run]:
    return node.name, _run(node)


def _shape(node: Dependant) -> tuple[Any, ...]:
    """What of a node, and of all below it, decides what FastAPI does with it."""
    return node.name, _run(node), node.use_cache, is_reused(node), tuple(map(_shape, node.dependencies))


class _Tree:
    """A route's tree without its `cached()`: what it solves, in this order, and what of that `covers` need."""

    def __init__(self, root: Dependant, covers: Sequence[Dependant]) -> None:
        self.root = root
        # By the ids of nodes, which the root keeps: to look for scopes below each takes most of the time.
        self._keys: dict[int, _Key] = {}
        self._leads: list[Dependant] = []
        # By the ids of nodes, that of the node of the tree that each stands for.
        self._for: dict[int, int] = {}
        # The nodes as FastAPI comes to them, and as it is done with the first of each.
        self._met: dict[_Key, int] = {}
        self._done: dict[_Key, Dependant] = {}
        # What it calls, each as often.
        self._alone: list[tuple[_Key, Dependant]] = []
        self._walk(root)
        for cover in covers:
            self._match(cover, self._done.get(self.key(cover)))
        self._needed = self._needs(covers)
        self.wanted = [_run(node) for key, node in self._alone if key in self._needed]

    def key(self, node: Dependant) -> _Key:
        """By what FastAPI tells whether two nodes are one."""
        key = self._keys.get(id(node))
        if key is None:
            key = self._keys[id(node)] = identity_of(node)
        return key

    def _walk(self, node: Dependant) -> None:
        for child in node.dependencies:
            if not isinstance(child.call, Cached):
                key = self.key(child)
                self._met.setdefault(key, len(self._met))
                self._walk(child)
                self._for[id(child)] = id(child)
                if key not in self._done or not is_reused(child):
                    self._alone.append((key, child))
                self._done.setdefault(key, child)

    def _match(self, node: Dependant, at: Dependant | None) -> None:
        """Take a cover, and what it needs, for the same of the tree."""
        if at is not None and id(at) in self._for and self.key(node) == self.key(at):
            self._for[id(node)] = self._for[id(at)]
            for child, its in zip(node.dependencies, at.dependencies, strict=False):
                self._match(child, its)

    def stands_for(self, node: Dependant) -> tuple[int | None, bool]:
        """Which node of the tree a node is, or stands for, and whether that is the first of its kind."""
        place = self._for.get(id(node))
        return place, place is not None and place == id(self._done.get(self.key(node)))

    def _needs(self, nodes: Iterable[Dependant]) -> set[_Key]:
        """What is solved for some nodes, these included, with what equal callables need."""
        found, looked_at, todo = set[_Key](), set[int](), [*nodes]
        while todo:
            node = todo.pop()
            if id(node) in looked_at:
                continue
            looked_at.add(id(node))
            todo += node.dependencies
            key = self.key(node)
            found.add(key)
            todo += [self._done[key]] if key in self._done and is_reused(node) else []
        return found

    def in_order(self, covers: Sequence[Dependant]) -> list[Dependant]:
        """The covers of one `cached()` as the tree comes to them."""

        def place(cover: Dependant) -> tuple[int, int]:
            key = self.key(cover)
            if key in self._met:
                return 1, self._met[key]
            return (0, 0) if self._met.keys().isdisjoint(self._needs([cover])) else (2, 0)

        return sorted(covers, key=place)

    def with_leads(self, covers: Sequence[Dependant]) -> list[Dependant]:
        """These covers, and before the first of them that is in the tree all that any cover needs until the last."""
        own = self._needs(covers)
        until = max((index for index, (key, _) in enumerate(self._alone) if key in own), default=-1)
        leads = [
            self._lead(key, node)
            for index, (key, node) in enumerate(self._alone)
            if index <= until and key in self._needed
        ]
        first = sum(self._met.keys().isdisjoint(self._needs([cover])) for cover in covers)
        return [*covers[:first], *leads, *covers[first:]]

    def _lead(self, key: _Key, node: Dependant) -> Dependant:
        lead = replace(node, name=None)
        self._leads.append(lead)
        self._keys[id(lead)], self._for[id(lead)] = key, id(node)
        return lead

    def without_needless(self, children: _Children) -> dict[int, Sequence[Dependant]]:
        """The same without the leads that change nothing."""
        kept: dict[int, Sequence[Dependant]] = {**children}
        for place, nodes in children.items():
            # The last first: what comes before it may be there for it alone.
            for lead in reversed(nodes):
                fewer = [node for node in kept[place] if node is not lead]
                if lead.name is None and self.runs({**kept, place: fewer}) == self.wanted:
                    kept[place] = fewer
        return kept

    def runs(self, children: _Children) -> list[_Run]:
        """What is wanted, in the order in which FastAPI calls it with these children of the `cached()`."""
        return [run for key, run in _Solving(self, children).runs if key in self._needed and key in self._done]


class _Solving:
    """A route as FastAPI solves it with these children of each `cached()`.

    `nodes` are the route's: each that stands for one whose call has been made takes what that gave. `runs` is what is
    called, one after the other, without what a cover that stands nowhere else has called once more.
    """

    def __init__(self, tree: _Tree, children: _Children) -> None:
        self._tree, self._children = tree, children
        self.runs: list[tuple[_Key, _Run]] = []
        self._done = set[_Key]()
        self._made_for = set[int]()
        # What a cover that stands nowhere else has called first.
        self._added = set[_Key]()
        self._in_order: dict[int, Cached] = {}
        self.nodes = self._solve(tree.root.dependencies)

    def _solve(self, nodes: Sequence[Dependant]) -> list[Dependant]:
        return [self._solved(node, self._solve(self._children.get(id(node), node.dependencies))) for node in nodes]

    def _solved(self, node: Dependant, below: Sequence[Dependant]) -> Dependant:
        if isinstance(node.call, Cached):
            return self._put_in_order(node, below)
        key = self._tree.key(node)
        place, first = self._tree.stands_for(node)
        known = key in self._done
        # FastAPI calls the first of a kind whatever that says: what comes before it now has made its call.
        earlier = known and (place in self._made_for or (first and key not in self._added))
        called = not known or not (earlier or is_reused(node))
        counts = not known if place is None else not (first and key in self._added)
        if called and counts:
            self.runs.append((key, _run(node)))
        if place is not None:
            self._made_for.add(place)
        elif not known:
            self._added.add(key)
        self._done.add(key)
        return asked(node, below, earlier=earlier and not is_reused(node))

    def _put_in_order(self, place: Dependant, below: Sequence[Dependant]) -> Dependant:
        if [*map(_shape, below)] == [*map(_shape, place.dependencies)]:
            return place
        call = place.call
        if [*map(_named_run, below)] != [*map(_named_run, place.dependencies)]:
            declared = _declared(place)
            names = [node.name or "" for node in _covers_in(below)]
            call = self._in_order.setdefault(id(declared), CachedInOrder(declared, names))
        return replace(place, call=call, dependencies=[*below])
