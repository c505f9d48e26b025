"""What a route is in every process that serves the same app: names, places and plain values, no number or address.

Two routes made by one factory have the same names. The plain values that their functions hold on to tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, cast
from uuid import UUID

from fastapi_cacheinval.core.keys import PartitionTypeError, encode, typed
from fastapi_cacheinval.dependencies import PARTITION, Cached
from fastapi_cacheinval.routes.dependency_tree import Node

__all__ = ["name_of", "partition_names", "plain_values", "route_identity"]

# A function that holds on to more functions than this is described by the first of them.
_MOST_FUNCTIONS = 64


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def name_of(call: object) -> str:
    """The qualified name of a callable, with its module; of an object's class where it has no name of its own."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    if not isinstance(getattr(call, "__qualname__", None), str):
        call = type(call)
    named: Any = call
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def _name(call: object) -> bytes:
    """The name of a callable, and the code of one that has none: two lambdas of one place may be of two releases."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    name = _bytes(name_of(call))
    if isinstance(call, FunctionType) and call.__name__ == "<lambda>":
        return encode((name, _code(call.__code__)))
    return name


def _code(code: CodeType) -> bytes:
    """A function's code: the same for the same source under one version of Python."""
    constants = [_code(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return encode((code.co_code, *map(_bytes, code.co_names), *constants))


def _constant(value: object) -> bytes:
    if isinstance(value, frozenset):
        # Each process has an order of its own.
        return encode(sorted(_bytes(repr(item)) for item in cast("frozenset[object]", value)))
    return _bytes(repr(value))


def plain_values(call: object) -> tuple[bytes, ...]:
    """The values a callable holds on to that are the same in every process: text, bytes, UUIDs, enums, classes.

    They stand in closures, defaults, the arguments of a `partial` and the attributes of a callable object. Numbers do
    not count, because they often number processes; nor do other objects, whose values may differ in each process.
    """
    return tuple(_values(call))


def _values(call: object) -> Iterator[bytes]:
    seen: set[int] = set()
    waiting: list[Any] = [call]
    while waiting and len(seen) < _MOST_FUNCTIONS:
        step: Any = waiting.pop(0)
        if id(step) in seen:
            continue
        seen.add(id(step))
        for name, held in _held(step, top=step is call):
            if isinstance(held, FunctionType | MethodType | partial):
                function: Any = cast("Any", held)
                yield encode((b"F", _bytes(name), _name(function)))
                waiting.append(function)
            elif isinstance(held, type):
                yield encode((b"C", _bytes(name), _bytes(name_of(held))))
            elif (plain := _plain(held)) is not None:
                yield encode((b"V", _bytes(name), plain))


def _held(step: Any, *, top: bool) -> Iterator[tuple[str, object]]:
    """What a callable holds on to, each with the name that it has there."""
    if isinstance(step, partial):
        yield "", step.func
        yield from _numbered(step.args)
        yield from sorted(step.keywords.items())
    elif isinstance(step, MethodType):
        yield "", step.__func__
        yield from _attributes(step.__self__)
    elif isinstance(step, FunctionType):
        yield from _closed_over(step)
        yield from _numbered(step.__defaults__ or ())
        yield from sorted((step.__kwdefaults__ or {}).items())
    elif top and not isinstance(step, type):
        # An object that stands in a closure may be anything, and is not looked into.
        yield from _attributes(step)


def _numbered(values: Iterable[object]) -> Iterator[tuple[str, object]]:
    yield from ((str(index), value) for index, value in enumerate(values))


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    found: dict[str, object] = getattr(thing, "__dict__", {})
    yield from ((name, found[name]) for name in sorted(found, key=str))


def _closed_over(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            # It has no value yet.
            continue


def _plain(value: object) -> bytes | None:
    """A value that is the same in every process, as bytes; None for any other."""
    if isinstance(value, tuple | frozenset):
        items = cast("Iterable[object]", value)
        inner = [plain for item in items if (plain := _plain(item)) is not None]
        return b"T" + encode(inner if isinstance(value, tuple) else sorted(inner)) if inner else None
    if not isinstance(value, str | bytes | UUID | Enum):
        return None
    try:
        return typed(value)
    except PartitionTypeError:
        return None


def _described(call: object) -> bytes:
    return encode((_name(call), *plain_values(call)))


def partition_names(root: Node, cached: Cached | None) -> tuple[bytes, ...]:
    """What the partition is of: each dependency in order, with its security scopes and the function that makes its key.

    A release that partitions by another dependency, or by the same with other scopes, shares nothing with this one.
    """
    if cached is None or not cached.policy.partition:
        return ()
    scopes: dict[str | None, set[str]] = {}
    for place in root.walk():
        if place.call is cached:
            for node in place.children:
                scopes.setdefault(node.declares.name, set()).update(node.identity[1])
    names: list[bytes] = []
    for index, cover in enumerate(cached.policy.partition):
        key = getattr(cover, "key", None)
        dependency: Any = getattr(cover, "dependency", cover)
        # A marker may stand around another.
        dependency = getattr(dependency, "dependency", dependency)
        parts = [_described(dependency), b"" if key is None else _described(key)]
        parts += map(_bytes, sorted(scopes.get(f"{PARTITION}{index}", ())))
        names.append(encode(parts))
    return tuple(names)


def route_identity(template: str, hosts: tuple[str, ...], methods: frozenset[str], root: Node) -> tuple[bytes, ...]:
    """A route's template, the patterns of its hosts, its methods and its handler, with all that tells it from a twin.

    Of its dependencies only the plain values count: renaming one does not make another route.
    """
    held = (value for node in root.walk() if node is not root and not node.ours for value in plain_values(node.call))
    return (
        _bytes(template),
        encode(map(_bytes, hosts)),
        encode(map(_bytes, sorted(methods))),
        _described(root.call),
        encode(held),
    )
