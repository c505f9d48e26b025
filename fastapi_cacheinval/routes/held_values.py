"""What a callable holds on to that is the same in every process: it tells apart what one factory has made.

Nothing of it runs: attributes are read where they stand, and no property or `__getattr__` is asked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache, partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodDescriptorType, MethodType, ModuleType, WrapperDescriptorType
from typing import Any, cast

from fastapi_cacheinval.core.keys import as_bytes, encode
from fastapi_cacheinval.routes.held_classes import led_to
from fastapi_cacheinval.routes.held_graph import said_by
from fastapi_cacheinval.routes.held_members import opened
from fastapi_cacheinval.routes.held_objects import (
    COVER,
    KEY,
    ROUTE,
    Detail,
    got_by,
    held_by,
    plain_of,
    qualified_name,
    runs,
    whose,
)
from fastapi_cacheinval.routes.once import once

__all__ = ["COVER", "KEY", "ROUTE", "Detail", "Portrait", "portrait_of", "qualified_name"]

# A function that holds on to more functions than this is described by the first of them.
_MOST_FUNCTIONS = 64
_MOST_FAR = 256
_CALL = "__call__"


@dataclass(frozen=True, slots=True)
class Portrait:
    """A callable by name: `parts` are the same in every process.

    `complete` is false where it calls something that has no name, or holds on to too much: another callable may have
    the same parts.
    """

    parts: tuple[bytes, ...]
    complete: bool


@once
def portrait_of(call: object, detail: Detail = ROUTE) -> Portrait:
    """What a callable is called, and what it holds on to.

    That stands in closures, defaults, the arguments of a `partial`, and the attributes of a callable object, of a
    method's object, of their classes, and of the objects that any of these hold on to.
    """
    walk = _Walk(detail, [_name(call, detail)], _named(call))
    walk.near.append(call)
    walk.through(walk.near, _MOST_FUNCTIONS)
    beyond = (_beyond(_Same(tuple(walk.far)), detail),) if walk.far else ()
    return Portrait((*walk.parts, *beyond), walk.complete and not walk.near)


class _Same:
    """Several things that are the same as others only if each is the same object."""

    def __init__(self, things: tuple[object, ...]) -> None:
        self.things = things
        self._hash = hash((*map(id, things),))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and [*map(id, self.things)] == [*map(id, other.things)]


@lru_cache(maxsize=256)
def _beyond(start: _Same, detail: Detail) -> bytes:
    """What code that a callable leads to does; many routes have the same dependencies."""
    walk = _Walk(detail, [], complete=True)
    walk.far += start.things
    walk.through(walk.far, _MOST_FAR)
    return sha256(encode(walk.parts)).digest()


@dataclass(slots=True)
class _Walk:
    """`near` is what a callable holds on to, and `far` the code that it leads to beside: of that the nearest counts."""

    detail: Detail
    parts: list[bytes]
    complete: bool
    near: deque[Any] = field(default_factory=deque[Any])
    far: deque[Any] = field(default_factory=deque[Any])

    def through(self, waiting: deque[Any], most: int) -> None:
        # Each is held for as long as its address stands for it.
        seen: dict[int, object] = {}
        while waiting and len(seen) < most:
            step = waiting.popleft()
            if id(step) in seen:
                continue
            seen[id(step)] = step
            for name, held in opened(held_by(step), self.detail):
                self._meet(as_bytes(name), held, waiting, named=name != "class")
            for name, held in opened(led_to(step), self.detail) if self.detail.code else ():
                self._meet(as_bytes(name), held, self.far, named=not isinstance(held, type))

    def _meet(self, tag: bytes, held: Any, waiting: deque[Any], *, named: bool) -> None:
        if tag == b"()" or runs(held):
            self._run(tag, held, waiting)
            self.complete = self.complete and _named(held)
            return
        plain = plain_of(held, self.detail)
        if plain is not None:
            self.parts.append(encode((b"V", tag, plain)))
        if plain is None or (isinstance(held, type) and named):
            got = got_by(held)
            if got is not None:
                self.parts.append(encode((b"O", tag, got)))
            for said, leads in said_by(held, self.detail) if got is None else ():
                self.parts.append(encode((b"O", tag, said)))
                if self.detail.code and leads is not None:
                    self._run(tag, leads, self.far)
            self.complete = self.complete and (not callable(held) or _named(held))
        elif self.detail.code and isinstance(held, type) and whose(held) == "theirs":
            self.far.append(held)

    def _run(self, tag: bytes, held: Any, waiting: deque[Any]) -> None:
        self.parts.append(encode((b"F", tag, _name(held, self.detail))))
        waiting.append(held)


# -- names ----------------------------------------------------------------------------------------


def _name(call: object, detail: Detail) -> bytes:
    """The name of a callable, and the code of one that has none: two lambdas of one place may be of two releases."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    name = as_bytes(qualified_name(call))
    function = call.__func__ if isinstance(call, MethodType) else call
    if isinstance(function, FunctionType) and (detail.code or function.__name__ == "<lambda>"):
        return encode((name, _code(function.__code__)))
    if isinstance(call, MethodDescriptorType | WrapperDescriptorType):
        return encode((name, as_bytes(qualified_name(call.__objclass__))))
    got = got_by(call)
    return name if got is None else encode((name, got))


def _named(call: object) -> bool:
    """Whether a callable's name and what it holds on to say what it does."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    if isinstance(call, MethodType | type) or got_by(call) is not None:
        return True
    if isinstance(getattr(call, "__qualname__", None), str):
        # A method of a C object holds on to that object.
        bound = getattr(call, "__self__", None)
        return bound is None or isinstance(bound, ModuleType | type)
    return isinstance(getattr(type(call), _CALL, None), FunctionType)


def _code(code: CodeType) -> bytes:
    """A function's code: the same for the same source under one version of Python."""
    constants = [_code(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return encode((code.co_code, *map(as_bytes, code.co_names), *constants))


def _constant(value: object) -> bytes:
    if isinstance(value, frozenset):
        # Each process has an order of its own.
        return b"F" + encode(sorted(_constant(item) for item in cast("frozenset[object]", value)))
    if isinstance(value, tuple):
        return b"T" + encode(_constant(item) for item in cast("tuple[object, ...]", value))
    return as_bytes(repr(value))
