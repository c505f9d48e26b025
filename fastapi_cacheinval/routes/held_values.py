"""What a callable holds on to that is the same in every process: it tells apart what one factory has made.

Nothing of it runs: attributes are read where they stand, and no property or `__getattr__` is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import attrgetter, itemgetter, methodcaller
from types import CodeType, FunctionType, MethodDescriptorType, MethodType, ModuleType, WrapperDescriptorType
from typing import Any, cast

from fastapi_cacheinval.core.keys import as_bytes, encode
from fastapi_cacheinval.routes.held_graph import said_by
from fastapi_cacheinval.routes.held_objects import (
    COVER,
    KEY,
    ROUTE,
    Detail,
    attribute_of,
    held_by,
    name_of,
    plain_of,
)

__all__ = ["COVER", "KEY", "ROUTE", "Detail", "Portrait", "name_of", "portrait_of"]

# A function that holds on to more functions than this is described by the first of them.
_MOST_FUNCTIONS = 64
_CALL = "__call__"


@dataclass(frozen=True, slots=True)
class Portrait:
    """A callable by name: `parts` are the same in every process.

    `complete` is false where it calls something that has no name, or holds on to too much: another callable may have
    the same parts.
    """

    parts: tuple[bytes, ...]
    complete: bool


def portrait_of(call: object, detail: Detail = ROUTE) -> Portrait:
    """What a callable is called, and what it holds on to.

    That stands in closures, defaults, the arguments of a `partial`, and the attributes of a callable object, of a
    method's object, of their classes, and of the objects that any of these hold on to.
    """
    parts: list[bytes] = [_name(call, detail)]
    complete = _named(call)
    seen: set[int] = set()
    waiting: list[Any] = [call]
    while waiting and len(seen) < _MOST_FUNCTIONS:
        step: Any = waiting.pop(0)
        if id(step) in seen:
            continue
        seen.add(id(step))
        for name, held in held_by(step):
            tag = as_bytes(name)
            if name == "()" or _runs(held):
                parts.append(encode((b"F", tag, _name(held, detail))))
                waiting.append(held)
                complete = complete and _named(held)
                continue
            plain = plain_of(held, detail)
            if plain is not None:
                parts.append(encode((b"V", tag, plain)))
            if plain is None or (isinstance(held, type) and name != "class"):
                got = _got(held)
                said = said_by(held, detail) if got is None else (got,)
                parts += (encode((b"O", tag, each)) for each in said)
                complete = complete and (not callable(held) or _named(held))
    return Portrait(tuple(parts), complete and not waiting)


# -- names ----------------------------------------------------------------------------------------


def _name(call: object, detail: Detail) -> bytes:
    """The name of a callable, and the code of one that has none: two lambdas of one place may be of two releases."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    name = as_bytes(name_of(call))
    function = call.__func__ if isinstance(call, MethodType) else call
    if isinstance(function, FunctionType) and (detail.code or function.__name__ == "<lambda>"):
        return encode((name, _code(function.__code__)))
    if isinstance(call, MethodDescriptorType | WrapperDescriptorType):
        return encode((name, as_bytes(name_of(call.__objclass__))))
    got = _got(call)
    return name if got is None else encode((name, got))


def _named(call: object) -> bool:
    """Whether a callable's name and what it holds on to say what it does."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    if isinstance(call, MethodType | type) or _got(call) is not None:
        return True
    if isinstance(getattr(call, "__qualname__", None), str):
        # A method of a C object holds on to that object.
        bound = getattr(call, "__self__", None)
        return bound is None or isinstance(bound, ModuleType | type)
    return isinstance(getattr(type(call), _CALL, None), FunctionType)


def _runs(held: object) -> bool:
    """Whether what is held is a function, or a wrapper of one that is not written in Python."""
    return isinstance(held, FunctionType | MethodType | partial) or (
        callable(held) and isinstance(attribute_of(held, "__wrapped__"), FunctionType)
    )


def _got(call: object) -> bytes | None:
    """What a getter of `operator` gets; None for anything else, and for one that gets what has no name."""
    if not isinstance(call, attrgetter | itemgetter | methodcaller):
        return None
    made, given = cast("tuple[Any, tuple[object, ...]]", cast("Any", call).__reduce__())
    keywords: dict[str, object] = made.keywords if isinstance(made, partial) else {}
    values = (*(made.args if isinstance(made, partial) else ()), *given, *keywords.values())
    plain = [plain_of(_sliced(value), KEY) for value in values]
    if any(each is None for each in plain):
        return None
    return encode((*(each for each in plain if each is not None), *map(as_bytes, keywords)))


def _sliced(value: object) -> object:
    if not isinstance(value, slice):
        return value
    part = cast("Any", value)
    return ("slice", part.start, part.stop, part.step)


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
