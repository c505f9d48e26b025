"""What a callable or an object holds on to, attribute by attribute; nothing of it runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from operator import attrgetter, itemgetter, methodcaller
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi_cacheinval.core.keys import PartitionTypeError, as_bytes, encode, typed

__all__ = [
    "COVER",
    "KEY",
    "ROUTE",
    "Detail",
    "address_of",
    "attribute_of",
    "attributes_of",
    "got_by",
    "held_by",
    "plain_fields",
    "plain_of",
    "qualified_name",
    "runs",
    "whose",
]

# Lists may hold themselves.
_DEEPEST = 8
# The classes that hold an address, of libraries each by another name: `URL`, `HttpUrl`, `PostgresDsn`.
_ADDRESSES = re.compile("(URL|Url|URI|Uri|Dsn)$")
_LIBRARIES = ("site-packages", "dist-packages")
# What is written in C and has no state: it is of a module or a class, or of nothing.
_BUILT_IN = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)
_OF_NOBODY = (ModuleType, type, type(None))
_NETWORKS = (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)
_MADE = ("__init__", "__new__", "__call__")
_AMOUNTS = (Decimal, Fraction, timedelta, range, complex, slice, timezone, ZoneInfo, *_NETWORKS)
_DATES = (date, datetime, time)
Held = tuple[str, object]


@dataclass(frozen=True, slots=True)
class Detail:
    """How much counts beside text, bytes, UUIDs, enums and classes.

    - `numbers`: integers, which otherwise often number processes, and what else of Python's is a fixed amount.
    - `contents`: floats, dates, and what mappings, lists and sets hold.
    - `code`: what the functions do, as far as their own code says it, and the members of containers one by one.
    """

    numbers: bool = False
    contents: bool = False
    code: bool = False


ROUTE = Detail()
COVER = Detail(numbers=True, code=True)
KEY = Detail(numbers=True, contents=True, code=True)


def qualified_name(call: object) -> str:
    """The qualified name of a callable, with its module; of an object's class where it has no name of its own."""
    while isinstance(call, partial):
        call = cast("Any", call.func)
    if not isinstance(getattr(call, "__qualname__", None), str):
        call = type(call)
    named: Any = call
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def held_by(step: Any) -> Iterator[Held]:
    """What a callable holds on to, each with the name that it has there; what it calls is named `()`."""
    if isinstance(step, partial):
        yield "()", step.func
        yield from _numbered(step.args)
        yield from sorted(step.keywords.items())
    elif isinstance(step, MethodType):
        yield "()", step.__func__
        if not isinstance(step.__self__, type) and plain_of(step.__self__, KEY) is not None:
            yield "self", step.__self__
        else:
            yield from _instance(step.__self__)
    elif isinstance(step, FunctionType):
        yield from _closed_over(step)
        yield from _numbered(step.__defaults__ or ())
        yield from sorted((step.__kwdefaults__ or {}).items())
        yield from sorted((name, value) for name, value in vars(step).items() if not name.startswith("__"))
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
    yield from attributes_of(thing)


def _numbered(values: Iterable[object]) -> Iterator[Held]:
    yield from ((str(index), value) for index, value in enumerate(values))


def _closed_over(function: FunctionType) -> Iterator[Held]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            # It has no value yet.
            continue


def attributes_of(thing: Any) -> Iterator[Held]:
    """An object's attributes: its own, those in slots, and those of its classes that it does not have itself."""
    own = {} if isinstance(thing, type) else _own(thing)
    yield from ((name, own[name]) for name in sorted(own, key=str))
    kinds: tuple[type, ...] = (thing if isinstance(thing, type) else type(thing)).__mro__
    found: dict[str, object] = {}
    for kind in reversed(kinds):
        if whose(kind) == "theirs":
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
        inner = attribute_of(value, "__func__") or value
        if isinstance(inner, FunctionType):
            # Only a class that a function makes has methods that hold on to what that function was given.
            if local and inner.__closure__ and name not in _MADE:
                yield name, inner
        elif not name.startswith("__") and plain_of(value, KEY) is not None:
            yield name, value


def attribute_of(thing: object, name: str) -> object:
    """An attribute as it stands, found without asking the object's own code; None where there is none."""
    try:
        return cast("object", object.__getattribute__(thing, name))
    except AttributeError:
        return None


def runs(held: object) -> bool:
    """Whether what is held is a function, or a wrapper of one that is not written in Python."""
    return isinstance(held, FunctionType | MethodType | partial) or (
        callable(held) and isinstance(attribute_of(held, "__wrapped__"), FunctionType)
    )


def whose(kind: type | FunctionType) -> str:
    """Whose class it is: `theirs`, who wrote the app, `a library's`, or `python's`, and ours counts as that."""
    module = str(kind.__module__)
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == "fastapi_cacheinval":
        return "python's"
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "a library's" if any(part in file for part in _LIBRARIES) else "theirs"


def address_of(value: object) -> bytes | None:
    """The text of a URL or a path, which is a value and no state, of a class of Python's or of a library's."""
    kind = type(value)
    path = isinstance(value, PurePath)
    if not (path or _ADDRESSES.search(kind.__name__)) or whose(kind) == "theirs":
        return None
    if isinstance(value, tuple):
        return plain_of(cast("object", value), ROUTE)
    try:
        return (b"A" if path else b"U") + as_bytes(str(value))
    except Exception:  # noqa: BLE001  # a class of a library that is no address after all
        return None


def plain_of(value: object, detail: Detail, depth: int = 0) -> bytes | None:
    """A value that is the same in every process, as bytes; None for any other."""
    if isinstance(value, type):
        return b"C" + as_bytes(qualified_name(value))
    if depth > _DEEPEST:
        return None
    if isinstance(value, re.Pattern):
        pattern = cast("re.Pattern[str]", value)
        return b"P" + as_bytes(repr((pattern.pattern, pattern.flags)))
    if isinstance(value, tuple | frozenset):
        return _all_of(cast("Iterable[object]", value), detail, depth, ordered=isinstance(value, tuple))
    if detail.contents:
        if isinstance(value, dict):
            return _all_of(cast("dict[object, object]", value).items(), detail, depth, ordered=False)
        if isinstance(value, list | set):
            return _all_of(cast("Iterable[object]", value), detail, depth, ordered=isinstance(value, list))
    address = _repeated(value, detail) or address_of(value)
    if address is not None:
        return address
    counted: tuple[type, ...] = (str, bytes, UUID, Enum, *((int,) if detail.numbers else ()))
    if not isinstance(value, counted):
        return None
    try:
        return typed(value)
    except PartitionTypeError:
        return None


def _repeated(value: object, detail: Detail) -> bytes | None:
    """A value of Python's own whose `repr` says all of it, and is the same in every process."""
    often = detail.contents and (value is None or isinstance(value, float) or type(value) in _DATES)
    if often or (detail.numbers and type(value) in _AMOUNTS):
        return b"R" + as_bytes(repr(value))
    if detail.code and isinstance(value, _BUILT_IN) and isinstance(getattr(value, "__self__", None), _OF_NOBODY):
        owner = getattr(value, "__objclass__", None)
        return b"F" + as_bytes(qualified_name(value) + ("" if owner is None else f" of {qualified_name(owner)}"))
    return b"Y" + bytes(value) if isinstance(value, bytearray) else None


def plain_fields(fields: Mapping[str, object], detail: Detail) -> list[bytes]:
    """Those of named values that are plain, by name."""
    plain = ((name, plain_of(fields[name], detail)) for name in sorted(fields))
    return [encode((as_bytes(name), value)) for name, value in plain if value is not None]


def _all_of(items: Iterable[object], detail: Detail, depth: int, *, ordered: bool) -> bytes | None:
    inner = [plain for item in items if (plain := plain_of(item, detail, depth + 1)) is not None]
    return b"T" + encode(inner if ordered else sorted(inner)) if inner else None


def got_by(call: object) -> bytes | None:
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
