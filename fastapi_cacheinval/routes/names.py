"""The names under which an author writes a route's dependencies; what has none is given one."""

from __future__ import annotations

import builtins
import keyword
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from inspect import getattr_static, isclass, isroutine, unwrap
from itertools import takewhile
from types import ModuleType
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Router

from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.fastapi_private import exit_of

__all__ = ["Names", "bare_name"]

_LOCALS = ".<locals>."


class Names:
    """How each dependency of one route is written.

    A dependency that is made in place (`Depends(Perm("a"))`) has no name that another place could write. It is given
    one, and `to_be_made` says how its author gives it the same. What it was made from stands in the author's code
    alone. So no line has that: what is pasted as it is must not make another. `to_be_made` says, too, what to import
    for one whose name another module has.
    """

    def __init__(self, root: Node) -> None:
        self._root = _function_of(root.call)
        self._globals: dict[str, Any] = getattr(self._root, "__globals__", {})
        # Where something may have been added after the route was made: a parameter's dependency comes after the lists.
        self._last = [*takewhile(lambda child: not child.bound, reversed(root.children))]
        # By equality, as FastAPI tells them apart: each look at a bound method makes another object.
        self._names: dict[Any, str] = {}
        self._makings: dict[str, str] = {}
        self._imports: dict[str, str] = {}
        nodes = [node for node in root.walk() if node is not root and not node.ours]
        # What they name, nothing else is named by where the handler is written.
        self._local = {each.identity[0].__name__: each.identity[0] for each in nodes if self._sees(each.identity[0])}
        unnamed: dict[Any, None] = {}
        for node in nodes:
            call: Any = node.identity[0]
            if call in self._names:
                continue
            taken = self._names.values()
            known = ((name, needed) for name, needed in self._known(call) if name not in taken)
            name, needed = next(known, ("", ""))
            if not name:
                unnamed[call] = None
                continue
            self._names[call] = name
            unnamed.pop(call, None)
            if needed:
                self._imports[name] = needed
        for call in unnamed:
            base, making = _made(call)
            name = self._free(base)
            self._names[call] = name
            self._makings[name] = making

    def spelled(self, node: Node) -> str:
        """A dependency as its author writes it, with the security scopes and the exit that it is asked for."""
        call, scopes, leaves = node.identity
        name = self._names.get(call) or _made(call)[0]
        # A text may be that of an enum, which would be written as no Python.
        asked = [f"scopes={sorted(map(str.__str__, scopes))}"] if scopes else []
        asked += [f"scope={leaves!r}"] if leaves != exit_of(replace(node.declares, scope=None)) and not scopes else []
        asked += [] if node.reused else ["use_cache=False"]
        return f"{'Security' if scopes else 'Depends'}({', '.join([name, *asked])})" if asked else name

    def listed(self, node: Node) -> str:
        """A dependency as it stands in a list of dependencies."""
        spelled = self.spelled(node)
        return spelled if spelled.startswith(("Depends(", "Security(")) else f"Depends({spelled})"

    def of_key(self, key: Any) -> str:
        """The key of a `PartitionBy` as it is written where the route is; `...` where it has no name there."""
        name = getattr(key, "__name__", "")
        if name in vars(builtins) and vars(builtins)[name] is key and self._is_free(name):
            return name
        return "..." if key is None else next((name for name, needed in self._known(key) if not needed), "...")

    @property
    def module(self) -> str:
        """The module whose names these are, where the route may be declared in another one; else empty."""
        inside = _LOCALS in getattr(self._root, "__qualname__", "")
        declares = any(isinstance(each, Router | Starlette) for each in [*self._globals.values()])
        return "" if inside or declares else str(self._globals.get("__name__", ""))

    def twin_of(self, node: Node, others: Sequence[Node]) -> str:
        """The name of one of the others that is made in place in the same way; empty where none is."""
        making = self._makings.get(self._names.get(node.identity[0], ""))
        names = (self._names.get(other.identity[0], "") for other in others if making)
        return next((name for name in names if self._makings.get(name) == making), "")

    def to_be_made(self, nodes: Sequence[Node]) -> str:
        """What to write for those of the nodes that have no name yet, or none here, before a line can name them."""
        names = dict.fromkeys(self._names.get(node.identity[0], "") for node in nodes)
        imports = dict.fromkeys(self._imports[name] for name in names if name in self._imports)
        return " ".join(
            [*([f"Import first: {'; '.join(imports)}."] if imports else []), *self._made_first(nodes, names)]
        )

    def _made_first(self, nodes: Sequence[Node], names: Iterable[str]) -> Iterator[str]:
        makings = {name: self._makings[name] for name in names if name in self._makings}
        given = ", ".join(f"{name} = <{making} as it stands now>" for name, making in makings.items())
        if len(makings) > 1:
            yield (
                "Some dependencies have no name that the cache could find, and what is made twice is two. Give each a "
                f"name that nothing else there has, before the route: {given}. Write these names in their places."
                f"{self._if_added(nodes)}"
            )
            return
        for name, making in makings.items():
            yield (
                f"{_sentence(making)} has no name that the cache could find. Give it one that nothing else there has, "
                f"before the route: {given}. Write {name} in its place.{self._if_added(nodes)}"
            )

    def _if_added(self, nodes: Sequence[Node]) -> str:
        """What to write if a library has added one of these to the route, which then never has a name."""
        listed = {id(child.identity[0]) for child in self._last}
        made = [node.identity[0] for node in nodes if self._names.get(node.identity[0]) in self._makings]
        calls = [call for call in made if id(call) in listed and isroutine(call)]
        own = _first(getattr(self._root, "__module__", ""))
        for library in dict.fromkeys(_first(call.__module__) for call in calls):
            if library != own:
                return f" If {library} adds it to the route by itself, keep it from that: no line names what it adds."
        return ""

    def _known(self, call: Any) -> Iterator[tuple[str, str]]:
        """The names that a callable has where the route is written, the best first, and the import that each needs."""
        owner = getattr(call, "__self__", None)
        if owner is not None and isroutine(call):
            if _has(owner, call):
                yield from ((f"{of}.{call.__name__}", needed) for of, needed in self._known(owner))
            return
        for name in self._visible(call):
            if self._local.get(name.partition(".")[0], call) is call:
                yield name, ""
        yield from self._elsewhere(call)
        for alias, holder in [*self._globals.items()]:
            yield from ((f"{alias}.{name}", "") for name in _names_in(holder, call))

    def _visible(self, thing: Any) -> Iterator[str]:
        """The names that need no import: those in the handler's module, and in what it holds of modules and classes."""
        if self._sees(thing):
            yield thing.__name__
        own, values = bare_name(thing), [*self._globals.items()]
        yield from sorted((name for name, value in values if value is thing), key=lambda name: name != own)
        if held := _holder(thing):
            yield from (f"{of}.{held[1]}" for of in self._visible(held[0]))
        for alias, module in values:
            if isinstance(module, ModuleType):
                yield from (f"{alias}.{name}" for name in _names_in(module, thing))

    def _elsewhere(self, thing: Any) -> Iterator[tuple[str, str]]:
        """The names that a callable has in its own module, and in others of its package or the handler's."""
        held = _holder(thing)
        if held and not isinstance(held[0], ModuleType):
            yield from ((f"{of}.{held[1]}", needed) for of, needed in self._elsewhere(held[0]))
            return
        if held and self._is_free(held[1]):
            yield held[1], f"from {thing.__module__} import {held[1]}"
        near = {_first(getattr(each, "__module__", "")) for each in (self._root, thing)}
        for full, module in [*sys.modules.items()]:
            package, _, alias = full.rpartition(".")
            if _first(full) in near and self._is_free(alias):
                needed = f"from {package} import {alias}" if package else f"import {alias}"
                yield from ((f"{alias}.{name}", needed) for name in _names_in(module, thing))

    def _sees(self, call: Any) -> bool:
        """Whether the handler is written where a local name of its own, or of a function around it, is this one."""
        if not (isclass(call) or isroutine(call)):
            return False
        scope, _, name = str(call.__qualname__).rpartition(_LOCALS)
        handler = f"{getattr(self._root, '__qualname__', '')}".rpartition(_LOCALS)[0]
        same = getattr(call, "__module__", None) == getattr(self._root, "__module__", "")
        return bool(scope) and same and name.isidentifier() and f"{handler}{_LOCALS}".startswith(f"{scope}{_LOCALS}")

    def _is_free(self, name: str) -> bool:
        return name not in self._globals and name not in self._local

    def _free(self, base: str) -> str:
        taken = {*self._names.values(), *self._globals, *self._local, *vars(builtins)}
        number = 1
        while (name := base if number == 1 else f"{base}_{number}") in taken:
            number += 1
        return name


def _function_of(handler: Any) -> Any:
    """The function of a handler: that of a method, of a partial, and the one by which an object is called."""
    bare: Any = unwrap(handler)
    while isinstance(bare, partial):
        bare = unwrap(bare.func)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    if not (isclass(bare) or isroutine(bare)):
        bare = unwrap(type(bare).__call__)
    return getattr(bare, "__func__", bare)


def _holder(thing: Any) -> tuple[Any, str] | None:
    """The module, package or class that has something under the name that it says of itself, and that name."""
    if isinstance(thing, ModuleType):
        above, _, name = thing.__name__.rpartition(".")
        holder, path = sys.modules.get(above), [name]
    elif isclass(thing) or isroutine(thing):
        above, path = getattr(thing, "__module__", None) or "", str(thing.__qualname__).split(".")
        holder = sys.modules.get(above)
    else:
        return None
    found: Any = holder
    for part in path:
        holder, found = found, getattr_static(found, part, None)
    # What a class holds as a static method is the function in it.
    return (holder, path[-1]) if getattr(found, "__func__", found) is thing else None


def _names_in(holder: object, thing: Any) -> list[str]:
    """The public names of something in a module, a class or another object."""
    try:
        held = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return []
    public = ((name, value) for name, value in [*held.items()] if isinstance(name, str) and name.isidentifier())
    return [name for name, value in public if value is thing and not name.startswith("_")]


def _has(owner: Any, method: Any) -> bool:
    """Whether a method is what its owner has under the method's name."""
    function = getattr(method, "__func__", None)
    if function is None:
        return bool(getattr(owner, method.__name__, None) == method)
    held = getattr_static(owner, method.__name__, None)
    return (getattr(held, "__func__", None) or held) is function


def _made(call: Any) -> tuple[str, str]:
    """A name for what has none, and what its author knows it by."""
    if isinstance(call, partial):
        func: Any = call.func  # pyright: ignore[reportUnknownMemberType]
        named = (isclass(func) or isroutine(func)) and _holder(func)
        base, of = (bare_name(func),) * 2 if named else _made(func)
        return _word(base), f"partial({of}, ...)"
    owner = getattr(call, "__self__", None)
    if owner is not None and isroutine(call):
        held = bare_name(owner) if isclass(owner) else _made(owner)[1]
        called = call.__name__ == "__call__" and not isclass(owner)
        return _made(owner)[0] if called else _word(call.__name__), f"{held}.{call.__name__}"
    if not (isclass(call) or isroutine(call)):
        return _word(type(call).__name__), f"{type(call).__qualname__.rpartition(_LOCALS)[2]}(...)"
    factory = str(call.__qualname__).rpartition(_LOCALS)[0].replace(_LOCALS, ".")
    if call.__name__ == "<lambda>":
        return "dependency", f"the lambda of {factory}(...)" if factory and "<" not in factory else "the lambda"
    line = getattr(getattr(unwrap(call), "__code__", None), "co_firstlineno", None)
    where = f" of {factory}(...)" if factory else f" of line {line}" if line else ""
    return _word(call.__name__), f"the {bare_name(call)}{where}"


def bare_name(call: Any) -> str:
    """What a class or function is called where it is written; the name of its class for any other object."""
    return str(getattr(call, "__qualname__", None) or type(call).__name__).rpartition(_LOCALS)[2]


def _word(name: str) -> str:
    """A class's name as that of a variable, a function's as it is."""
    # That something is called says nothing that its class does not.
    plain = re.sub(r"\.?__call__", "", name)
    word = re.sub(r"\W", "", re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain).lower())
    return word if word.isidentifier() and not keyword.iskeyword(word) else "dependency"


def _sentence(text: str) -> str:
    return text.replace("the ", "The ", 1) if text.startswith("the ") else text


def _first(module: str | None) -> str:
    return (module or "").partition(".")[0]
