"""Whether a function's return annotation says that its value cannot be a part of a cache key."""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncIterable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

__all__ = ["fields_of", "is_a_mapping", "says_its_type", "unfit_for_a_key"]

_FIT = (str, bytes, int, UUID, Enum, type(None))


def unfit_for_a_key(call: Any) -> str | None:
    """The annotated type of what FastAPI hands on of a callable, where no cache key can hold it.

    None where one can, or where nothing says: the value itself is looked at on each request.
    """
    annotation = _given(call)
    return _unfit(annotation)


def says_its_type(call: Any) -> bool:
    """Whether anything says of what type a callable's value is."""
    return _given(call) not in (inspect.Parameter.empty, Any)


def is_a_mapping(call: Any) -> bool:
    """Whether a callable's annotation says that its value is a mapping, whose parts are items and no attributes."""
    kind = _classes(_given(call))
    return bool(kind) and all(issubclass(each, Mapping) for each in kind)


def fields_of(call: Any) -> frozenset[str]:
    """The names of the parts that a callable's value has by its annotation; for members of a union, those of any."""
    found: set[str] = set()
    for kind in _classes(_given(call)):
        for base in kind.__mro__:
            found |= {*getattr(base, "__annotations__", {}), *getattr(base, "__slots__", ())}
            found |= {name for name, value in vars(base).items() if isinstance(value, property)}
    # Pydantic's own are no parts of a value.
    return frozenset(name for name in found if not name.startswith(("_", "model_")))


def _classes(annotation: Any) -> list[type]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _classes(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in _classes(member)]
    kind = origin or getattr(annotation, "__value__", None) or annotation
    if kind is not annotation and not inspect.isclass(kind):
        return _classes(kind)
    return [kind] if inspect.isclass(kind) and kind not in (type(None), inspect.Parameter.empty, object) else []


def _given(call: Any) -> Any:
    """The type of a callable's value: an instance of a class, what a generator yields, else what is returned."""
    while isinstance(call, partial):
        call = call.func
    if inspect.isclass(call):
        return call
    function = call if inspect.isroutine(call) else type(call).__call__
    try:
        annotation = inspect.signature(function, eval_str=True).return_annotation
    except (TypeError, ValueError, NameError, AttributeError, SyntaxError):
        return Any
    bare = inspect.unwrap(function)
    if inspect.isgeneratorfunction(bare) or inspect.isasyncgenfunction(bare):
        origin = get_origin(annotation)
        yields = inspect.isclass(origin) and issubclass(origin, Iterable | AsyncIterable)
        return get_args(annotation)[0] if yields and get_args(annotation) else Any
    return annotation


def _unfit(annotation: Any) -> str | None:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _unfit(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((found for member in get_args(annotation) if (found := _unfit(member))), None)
    if origin is Literal or annotation in (inspect.Parameter.empty, Any, None, object):
        return None
    kind = origin or getattr(annotation, "__value__", None) or annotation
    if not inspect.isclass(kind):
        return None if kind is annotation else _unfit(kind)
    if issubclass(kind, tuple) and origin is tuple:
        return next((found for member in get_args(annotation) if member is not ... and (found := _unfit(member))), None)
    if issubclass(kind, (*_FIT, tuple)) or getattr(kind, "_is_protocol", False) or inspect.isabstract(kind):
        return None
    return kind.__qualname__
