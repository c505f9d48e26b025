"""What a callable leads to without holding it: the classes and functions of its annotations, and the code of classes.

A validator stands in an annotation, or in a class that one names. What a method or a property of such a class does
decides what the callable makes of a request as its own code does. Of a library's code the callable's author knows
no more than its name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType, SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from fastapi_cacheinval.routes.held_objects import COVER, Held, attribute_of, attributes_of, plain_of, runs, whose

if sys.version_info >= (3, 14):
    from annotationlib import Format

__all__ = ["led_to"]

# Where a property, a class method, a cached property or a validator keeps its function.
_FUNCTIONS = ("__func__", "fget", "func", "wrapped", "__wrapped__")
# A type may be made of itself.
_DEEPEST = 16
# Python's own, of what annotations are made by.
_ANNOTATES = frozenset({"__annotate__", "__annotate_func__"})


def led_to(step: Any) -> Iterator[Held]:
    """What the annotations of a function name, or those of a class, its bases and metaclass; of these the functions."""
    if isinstance(step, FunctionType):
        yield from _annotated(step) if whose(step) == "theirs" else ()
    elif isinstance(step, type):
        for kind in (*step.__mro__, *_class_of(step).__mro__):
            if whose(kind) == "theirs":
                yield from _functions(kind)
                yield from _annotated(kind)


def _functions(kind: type) -> Iterator[Held]:
    members: dict[str, object] = {name: value for name, value in vars(kind).items() if name not in _ANNOTATES}
    for name in sorted(members):
        value = members[name]
        behind = () if isinstance(value, FunctionType) else (attribute_of(value, at) for at in _FUNCTIONS)
        yield from ((name, each) for each in [*filter(runs, (*behind, value))][:1])


def _annotated(thing: Any) -> Iterator[Held]:
    # Pydantic knows what names in the body of a function stand for.
    fields: Mapping[str, Any] = thing.model_fields if _is_model(thing) else {}
    for name in sorted(fields):
        yield from ((name, each) for each in (*_named(fields[name].annotation), *_beside(fields[name].metadata)))
        if callable(fields[name].default_factory):
            yield name, fields[name].default_factory
        yield name, fields[name].default
    for name, private in sorted(thing.__private_attributes__.items()) if _is_model(thing) else ():
        yield from ((name, each) for each in (private.default, private.default_factory))
    said = {name: each for name, each in _declared(thing).items() if name not in fields}
    space = getattr(thing, "__globals__", None) or vars(sys.modules.get(thing.__module__, thing))
    for name in sorted(said):
        yield from ((name, each) for each in _named(_evaluated(said[name], space)))


def _is_model(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def _declared(thing: Any) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        return inspect.get_annotations(thing, format=Format.FORWARDREF)
    return inspect.get_annotations(thing)


def _evaluated(said: Any, space: Mapping[str, Any]) -> Any:
    """What a text in the place of an annotation stands for; nothing where a type checker alone knows that."""
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": said}), {**space}, include_extras=True)["it"]
    except Exception:  # noqa: BLE001  # the text may be any code
        return None


def _named(annotation: Any, depth: int = 0) -> Iterator[object]:
    """The classes that an annotation names, and what stands beside them."""
    origin, parts = get_origin(annotation), get_args(annotation)
    meant = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    if isinstance(annotation, type) and origin is None:
        yield annotation
    elif depth < _DEEPEST and origin is not Literal:
        types = parts[:1] if origin is Annotated else (meant, origin, *parts)
        for each in filter(None, types):
            yield from _named(each, depth + 1)
        yield from _beside(parts[1:]) if origin is Annotated else ()


def _beside(metadata: Sequence[object]) -> Iterator[object]:
    """What an annotation says of a type: the app's objects, and what validates or constrains in a library's."""
    for each in metadata:
        if whose(_class_of(each)) != "a library's":
            yield each
        for _, value in attributes_of(each):
            called = callable(value) and not isinstance(value, type) | bool(get_args(value))
            if called or (not isinstance(value, type) and plain_of(value, COVER) is not None):
                yield value


def _class_of(thing: object) -> type:
    # Of a class, its metaclass.
    return type(thing)
