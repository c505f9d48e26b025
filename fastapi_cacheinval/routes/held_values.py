"""What a callable holds on to that is the same in every process: it tells apart what one factory has made.

Nothing of it runs: attributes are read where they stand, and no property or `__getattr__` is asked.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from operator import attrgetter, itemgetter, methodcaller
from types import (
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, cast
from uuid import UUID

from fastapi_cacheinval.core.keys import PartitionTypeError, encode, typed

__all__ = ["COVER", "KEY", "ROUTE", "Detail", "Portrait", "name_of", "plain_fields", "portrait_of"]

# A function that holds on to more functions than this is described by the first of them.
_MOST_FUNCTIONS = 64
# Lists may hold themselves.
_DEEPEST = 8
_LIBRARIES = ("site-packages", "dist-packages")
_CALL = "__call__"
_MADE = ("__init__", "__new__", _CALL)
Held = tuple[str, object]


@dataclass(frozen=True, slots=True)
class Detail:
    """How much counts beside text, bytes, UUIDs, enums and classes.

    - `numbers`: integers, which otherwise often number processes.
    - `contents`: floats and what mappings, lists and sets hold.
    - `code`: what the functions do, as far as their own code says it.
    """

    numbers: bool = False
    contents: bool = False
    code: bool = False


ROUTE = Detail()
COVER = Detail(numbers=True, code=True)
KEY = Detail(numbers=True, contents=True, code=True)


@dataclass(frozen=True, slots=True)
class Portrait:
    """A callable by name: `parts` are the same in every process.

    `complete` is false where it calls something that has no name, or holds on to too much: another callable may have
    the same parts.
    """

    parts: tuple[bytes, ...]
    complete: bool


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
        for name, held in _held(step):
            tag = _bytes(name)
            if name == "()" or _runs(held):
                parts.append(encode((b"F", tag, _name(held, detail))))
                waiting.append(held)
                complete = complete and _named(held)
                continue
            plain = _plain(held, detail)
            if plain is not None:
                parts.append(encode((b"V", tag, plain)))
            if plain is None or (isinstance(held, type) and name != "class"):
                parts += (encode((b"O", tag, each)) for each in _object(held, detail))
                complete = complete and (not callable(held) or _named(held))
    return Portrait(tuple(parts), complete and not waiting)


def plain_fields(fields: Mapping[str, object], detail: Detail) -> list[bytes]:
    """Those of named values that are plain, by name."""
    plain = ((name, _plain(fields[name], detail)) for name in sorted(fields))
    return [encode((_bytes(name), value)) for name, value in plain if value is not None]


# -- names ----------------------------------------------------------------------------------------


def _name(call: object, detail: Detail) -> bytes:
    """The name of a callable, and the code of one that has none: two lambdas of one place may be of two releases."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    name = _bytes(name_of(call))
    function = call.__func__ if isinstance(call, MethodType) else call
    if isinstance(function, FunctionType) and (detail.code or function.__name__ == "<lambda>"):
        return encode((name, _code(function.__code__)))
    if isinstance(call, MethodDescriptorType | WrapperDescriptorType):
        return encode((name, _bytes(name_of(call.__objclass__))))
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
        callable(held) and isinstance(_attribute(held, "__wrapped__"), FunctionType)
    )


def _got(call: object) -> bytes | None:
    """What a getter of `operator` gets; None for anything else, and for one that gets what has no name."""
    if not isinstance(call, attrgetter | itemgetter | methodcaller):
        return None
    made, given = cast("tuple[Any, tuple[object, ...]]", cast("Any", call).__reduce__())
    keywords: dict[str, object] = made.keywords if isinstance(made, partial) else {}
    values = (*(made.args if isinstance(made, partial) else ()), *given, *keywords.values())
    plain = [_plain(_sliced(value), KEY) for value in values]
    if any(each is None for each in plain):
        return None
    return encode((*(each for each in plain if each is not None), *map(_bytes, keywords)))


def _sliced(value: object) -> object:
    if not isinstance(value, slice):
        return value
    part = cast("Any", value)
    return ("slice", part.start, part.stop, part.step)


def _code(code: CodeType) -> bytes:
    """A function's code: the same for the same source under one version of Python."""
    constants = [_code(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return encode((code.co_code, *map(_bytes, code.co_names), *constants))


def _constant(value: object) -> bytes:
    if isinstance(value, frozenset):
        # Each process has an order of its own.
        return b"F" + encode(sorted(_constant(item) for item in cast("frozenset[object]", value)))
    if isinstance(value, tuple):
        return b"T" + encode(_constant(item) for item in cast("tuple[object, ...]", value))
    return _bytes(repr(value))


# -- what is held ---------------------------------------------------------------------------------


def _held(step: Any) -> Iterator[Held]:
    """What a callable holds on to, each with the name that it has there; what it calls is named `()`."""
    if isinstance(step, partial):
        yield "()", step.func
        yield from _numbered(step.args)
        yield from sorted(step.keywords.items())
    elif isinstance(step, MethodType):
        yield "()", step.__func__
        yield from _instance(step.__self__)
    elif isinstance(step, FunctionType):
        yield from _closed_over(step)
        yield from _numbered(step.__defaults__ or ())
        yield from sorted((step.__kwdefaults__ or {}).items())
    else:
        yield from _instance(step)
        kind = step if isinstance(step, type) else type(step)
        for name in _MADE:
            function = getattr(kind, name, None)
            if isinstance(function, FunctionType):
                yield name, function


def _instance(thing: Any) -> Iterator[Held]:
    """An object's class and its attributes, or a class's own."""
    yield "class", thing if isinstance(thing, type) else type(thing)
    yield from _attributes(thing)


def _numbered(values: Iterable[object]) -> Iterator[Held]:
    yield from ((str(index), value) for index, value in enumerate(values))


def _closed_over(function: FunctionType) -> Iterator[Held]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            # It has no value yet.
            continue


def _attributes(thing: Any) -> Iterator[Held]:
    """An object's attributes: its own, those in slots, and those of its classes that it does not have itself."""
    own = {} if isinstance(thing, type) else _own(thing)
    yield from ((name, own[name]) for name in sorted(own, key=str))
    kinds: tuple[type, ...] = (thing if isinstance(thing, type) else type(thing)).__mro__
    found: dict[str, object] = {}
    for kind in reversed(kinds):
        if _whose(kind) == "theirs":
            found.update(_of_class(kind))
    yield from ((name, found[name]) for name in sorted(found) if name not in own)


def _own(thing: Any) -> dict[str, object]:
    try:
        found = dict(cast("dict[str, object]", object.__getattribute__(thing, "__dict__")))
    except AttributeError:
        found = {}
    for kind in type(thing).__mro__:
        slots = ((name, slot) for name, slot in vars(kind).items() if isinstance(slot, MemberDescriptorType))
        for name, slot in slots if "__slots__" in vars(kind) else ():
            try:
                found.setdefault(name, slot.__get__(thing, kind))
            except AttributeError:
                # It has no value yet.
                continue
    return found


def _of_class(kind: type) -> Iterator[Held]:
    local = "<locals>" in kind.__qualname__
    members = cast("Mapping[str, Any]", vars(kind))
    for name, value in members.items():
        inner = _attribute(value, "__func__") or value
        if isinstance(inner, FunctionType):
            # Only a class that a function makes has methods that hold on to what that function was given.
            if local and inner.__closure__ and name not in _MADE:
                yield name, inner
        elif not name.startswith("__") and _plain(value, KEY) is not None:
            yield name, value


def _attribute(thing: object, name: str) -> object:
    try:
        return cast("object", object.__getattribute__(thing, name))
    except AttributeError:
        return None


def _whose(kind: type) -> str:
    """Whose class it is: `theirs`, who wrote the app, `a library's`, or `python's`, and ours counts as that."""
    module = kind.__module__
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == "fastapi_cacheinval":
        return "python's"
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "a library's" if any(part in file for part in _LIBRARIES) else "theirs"


def _object(thing: object, detail: Detail) -> Iterator[bytes]:
    """What an object says of itself that is neither a function nor plain: its class, and its plain attributes.

    Of a library's object only the public ones count. An object of Python's own says nothing.
    """
    got = _got(thing)
    if got is not None:
        yield got
        return
    whose = _whose(thing if isinstance(thing, type) else type(thing))
    if whose == "python's":
        return
    yield _bytes(name_of(thing if isinstance(thing, type) else type(thing)))
    for name, value in _attributes(thing):
        if whose == "a library's" and name.startswith("_"):
            continue
        plain = _plain(value, detail)
        if plain is not None:
            yield encode((_bytes(str(name)), plain))


def _plain(value: object, detail: Detail, depth: int = 0) -> bytes | None:
    """A value that is the same in every process, as bytes; None for any other."""
    if isinstance(value, type):
        return b"C" + _bytes(name_of(value))
    if depth > _DEEPEST:
        return None
    if isinstance(value, re.Pattern):
        pattern = cast("re.Pattern[str]", value)
        return b"P" + _bytes(repr((pattern.pattern, pattern.flags)))
    if isinstance(value, tuple | frozenset):
        return _all_of(cast("Iterable[object]", value), detail, depth, ordered=isinstance(value, tuple))
    if detail.contents:
        if isinstance(value, dict):
            return _all_of(cast("dict[object, object]", value).items(), detail, depth, ordered=False)
        if isinstance(value, list | set):
            return _all_of(cast("Iterable[object]", value), detail, depth, ordered=isinstance(value, list))
        if value is None or isinstance(value, float):
            return b"R" + _bytes(repr(value))
    counted: tuple[type, ...] = (str, bytes, UUID, Enum, *((int,) if detail.numbers else ()))
    if not isinstance(value, counted):
        return None
    try:
        return typed(value)
    except PartitionTypeError:
        return None


def _all_of(items: Iterable[object], detail: Detail, depth: int, *, ordered: bool) -> bytes | None:
    inner = [plain for item in items if (plain := _plain(item, detail, depth + 1)) is not None]
    return b"T" + encode(inner if ordered else sorted(inner)) if inner else None
