"""A route's dependency tree as it will be solved, overrides applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import is_
from typing import Any, Protocol, cast

from fastapi_cacheinval.dependencies import Cached, CachedInOrder, Invalidates, InvalidatesNothing, collected_tags
from fastapi_cacheinval.routes.endpoint_calls import declared_call
from fastapi_cacheinval.routes.fastapi_private import Dependant, exit_of, is_late, replacement, scopes_of

__all__ = ["Node", "Overrides", "asked", "identity_of", "is_reused", "tree_of"]

_OURS = (Cached, CachedInOrder, Invalidates, InvalidatesNothing)


class Overrides(Protocol):
    """What FastAPI asks, by `get()` alone, for the call that runs in a dependency's place."""

    def get(self, call: Any, otherwise: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One call in the tree.

    `identity` is the declared callable's, see `identity_of`. `declares` is what runs, which differs from it under
    overrides.
    `bound` is false where the value goes nowhere, as in `dependencies=[...]`. `late` is a `yield` dependency
    whose exit, and so its commit, comes after the response.
    """

    identity: tuple[Any, frozenset[str], str]
    declares: Dependant
    bound: bool
    reused: bool
    late: bool
    children: tuple[Node, ...]

    @property
    def call(self) -> Any:
        """What runs, without the note that is taken of it."""
        return declared_call(self.declares)

    @property
    def ours(self) -> bool:
        """Whether it is the cache's own marker, which reads the request without telling callers apart."""
        # By identity: a subclass of ours may do anything with the request.
        return type(self.call) in _OURS or self.call is collected_tags

    @property
    def label(self) -> str:
        """The callable's name, for messages."""
        call = self.call
        while isinstance(call, partial):
            call = call.func
        name = str(getattr(call, "__qualname__", None) or type(call).__qualname__)
        # Of a function that another one makes, the name alone.
        return name.rpartition("<locals>.")[2]

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        waiting: list[Node] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


def identity_of(declared: Dependant) -> tuple[Any, frozenset[str], str]:
    """A callable with its effective security scopes and the time of its exit: FastAPI solves equal ones once."""
    return declared.call, scopes_of(declared), exit_of(declared)


class _TakesEarlier(Dependant):
    """A node with `use_cache=False` whose own call is made earlier, by a cover: it takes what that call gave."""


def is_reused(declared: Dependant) -> bool:
    """Whether the author lets a node take the value of an earlier one."""
    return declared.use_cache and not isinstance(declared, _TakesEarlier)


def asked(node: Dependant, below: Sequence[Dependant], *, earlier: bool) -> Dependant:
    """A node with these below it, that takes the value of an `earlier` one or does what its author says."""
    kind, use_cache = (_TakesEarlier, True) if earlier else (Dependant, is_reused(node))
    same = len(below) == len(node.dependencies) and all(map(is_, below, node.dependencies))
    if same and isinstance(node, _TakesEarlier) is earlier:
        return node
    kept = {each.name: getattr(node, each.name) for each in fields(cast("Any", node)) if each.init}
    made: Dependant = cast("Any", kind)(**{**kept, "dependencies": [*below], "use_cache": use_cache})
    return made


def tree_of(dependant: Dependant, overrides: Overrides) -> Node:
    """The tree of a route's own dependant; its root, the handler, is never overridden."""
    return _node(dependant, dependant, overrides)


def _node(declared: Dependant, used: Dependant, overrides: Overrides) -> Node:
    children: list[Node] = []
    for child in used.dependencies:
        solved = replacement(child, overrides.get(child.call, child.call)) if overrides and child.call else child
        children.append(_node(child, solved, overrides))
    return Node(
        identity=identity_of(declared),
        declares=used,
        bound=declared.name is not None,
        reused=is_reused(declared),
        late=is_late(used),
        children=tuple(children),
    )
