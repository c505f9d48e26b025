"""The attributes that code sets: what a value may have beside what its class declares."""

from __future__ import annotations

import dis
import inspect
import types
from typing import Any

from fastapi_cacheinval.routes.own_code import codes_of

__all__ = ["methods_of", "set_by", "set_in", "sets_by_name"]

_SETTERS = frozenset({"__dict__", "__setattr__", "setattr", "vars"})
_CLOSED = frozenset({"_collections_abc", "abc", "collections", "enum", "pydantic", "sqlalchemy", "sqlmodel", "typing"})
# What dataclasses and attrs write sets what is declared.
_GENERATED = ("<string>", "<attrs")


def set_in(method: Any) -> set[str]:
    """The attributes that a function sets."""
    codes = _codes_of(method)
    return {each.argval for code in codes for each in dis.get_instructions(code) if each.opname == "STORE_ATTR"}


def set_by(call: Any) -> frozenset[str]:
    """The attributes that a dependency sets of what it has at hand, which may be its value."""
    found: set[str] = set()
    for code in _codes_of(inspect.unwrap(call)):
        before = ""
        for each in dis.get_instructions(code):
            if each.opname == "STORE_ATTR" and "LOAD_FAST" in before:
                found.add(each.argval)
            before = each.opname
    return frozenset(found)


def sets_by_name(method: Any) -> bool:
    """Whether a function may set attributes that it does not name."""
    return any(not _SETTERS.isdisjoint(code.co_names) for code in _codes_of(method))


def _codes_of(method: Any) -> list[types.CodeType]:
    """The code of a function, and of those that it makes; a library's own keeps to what the class declares."""
    function = getattr(method, "__func__", method)
    if not inspect.isfunction(function) or str(function.__module__).partition(".")[0] in _CLOSED:
        return []
    return [code for code in codes_of(function.__code__) if not code.co_filename.startswith(_GENERATED)]


def methods_of(kind: type) -> list[Any]:
    """All that one class, and its metaclass, may make a value with."""
    return [each for of in (kind, type(kind)) for each in vars(of).values() if not isinstance(each, property)]
