"""Whether a function's return annotation says that its value cannot be a part of a cache key."""

from __future__ import annotations

import builtins
import dis
import inspect
import types
from collections import deque
from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from enum import Enum
from functools import cached_property, partial, partialmethod, singledispatchmethod
from inspect import unwrap
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from fastapi_cacheinval.core.plain_values import PLAIN, inherited_type
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.held_objects import whose
from fastapi_cacheinval.routes.set_attributes import methods_of, set_in, sets_by_name

__all__ = [
    "classes_of",
    "fields_of",
    "inherited_by",
    "is_a_mapping",
    "made_of",
    "may_be_missing",
    "may_be_none",
    "says_something",
    "typed_fields_of",
    "undeclared_of",
    "unfit",
    "unfit_for_a_key",
    "value_type",
]

# More than anybody reads about.
_MOST_SUBCLASSES = 64
_FIT = (*PLAIN, Enum, type(None))
# These are no parts of a value, or found in another way.
_METHODS = (classmethod, partialmethod, singledispatchmethod, property, cached_property)
_CONTAINERS = (list, set, frozenset, dict, deque, types.SimpleNamespace, BaseException)


def unfit_for_a_key(call: Any) -> str | None:
    """The annotated type of what FastAPI hands on of a callable, where no cache key can hold it.

    None where one can, or where nothing says: the value itself is looked at on each request.
    """
    return unfit(_given(call))


def value_type(node: Node, root: Node) -> Any:
    """The type of a dependency's value: what it says itself, else what the handler says of the parameter."""
    given = _given(node.call)
    if says_something(given) or node not in root.children or node.declares.name is None:
        return given
    try:
        said = get_type_hints(unwrap(root.call)).get(node.declares.name, given)
    except (TypeError, NameError, AttributeError, SyntaxError):
        return given
    return said


def says_something(kind: Any) -> bool:
    """Whether an annotation says of what type a value is."""
    return kind not in (inspect.Parameter.empty, Any)


def may_be_none(kind: Any) -> bool:
    """Whether an annotation allows None beside something else."""
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def is_a_mapping(kind: Any) -> bool:
    """Whether an annotation says that a value is a mapping, whose parts are items and no attributes."""
    found = classes_of(kind)
    return bool(found) and all(issubclass(each, Mapping) for each in found)


def fields_of(kind: Any) -> frozenset[str]:
    """The names of the parts that a value has by its annotation; for members of a union, those of any."""
    # Pydantic's own are no parts of a value.
    return frozenset(name for name in _parts_of(kind) if not name.startswith(("_", "model_")))


def _parts_of(kind: Any) -> set[str]:
    found: set[str] = set()
    for each in classes_of(kind):
        for base in each.__mro__:
            said = getattr(base, "__annotations__", {})
            names = {name for name, each in said.items() if not _is_of_the_class(each)}
            slots = getattr(base, "__slots__", ())
            names |= {slots} if isinstance(slots, str) else {*slots}
            names |= {name for name in _properties_of(base) if not name.startswith("_")}
            names |= {name for method in methods_of(base) for name in set_in(method)}
            # Without annotations, the methods that attrs writes say nothing.
            names |= {each.name for each in getattr(base, "__attrs_attrs__", ())}
            # A library's class keeps its own to itself.
            theirs = whose(base) == "theirs"
            found |= names | _descriptors_of(base) if theirs else {name for name in names if not name.startswith("_")}
    return found


def _descriptors_of(kind: type) -> set[str]:
    """What a class computes or looks up without saying so by an annotation, such as a mapped column."""
    members: dict[str, object] = {**vars(kind)}
    return {name for name, value in members.items() if _is_descriptor(value)}


def _is_descriptor(value: object) -> bool:
    return hasattr(value, "__get__") and not callable(value) and not isinstance(value, _METHODS)


def _properties_of(kind: type) -> dict[str, Any]:
    """The functions behind the properties of one class."""
    of = {name: getattr(value, "fget", None) for name, value in vars(kind).items() if isinstance(value, property)}
    return of | {name: value.func for name, value in vars(kind).items() if isinstance(value, cached_property)}


def made_of(kind: Any, parts: Collection[str]) -> frozenset[str]:
    """The names of the properties that are made of these parts and of nothing else, as far as their code says that."""
    bases = [base for each in classes_of(kind) for base in each.__mro__]
    found = [each for base in bases for each in _properties_of(base).items()]
    others = {name for name, function in found if not _reads_only(function, parts)}
    return frozenset(name for name, _ in found) - others


def _reads_only(function: Any, parts: Collection[str]) -> bool:
    if not inspect.isfunction(function) or function.__closure__:
        return False
    named = [each for each in dis.get_instructions(function) if each.argval in function.__code__.co_names]
    attributes = {each.argval for each in named if each.opname != "LOAD_GLOBAL"}
    others = {each.argval for each in named if each.opname == "LOAD_GLOBAL"}
    return bool(attributes) and attributes <= {*parts} and all(hasattr(builtins, name) for name in others)


def undeclared_of(kind: Any) -> frozenset[str]:
    """What a value may have beside what its annotation declares: private parts, what subclasses add, anything."""
    found: set[str] = set()
    classes: list[type[Any]] = classes_of(kind)
    for each in classes:
        found |= getattr(each, "__private_attributes__", {}).keys()
        found |= {name for name in _parts_of(each) if name.startswith("_") and not name.endswith("__")}
        if whose(each) == "theirs" and not is_typeddict(each) and any(base in _CONTAINERS for base in each.__mro__):
            found.add(f"all that {each.__qualname__} holds")
        for below in _below(each):
            found |= {f"{name} ({below.__qualname__})" for name in fields_of(below) - fields_of(each)}
        # Pydantic's own gives private parts.
        made = next((base for base in each.__mro__ if "__getattr__" in vars(base)), None)
        extra = getattr(each, "model_config", {}).get("extra") == "allow"
        by_name = any(sets_by_name(method) for base in each.__mro__ for method in methods_of(base))
        if extra or by_name or (made is not None and made.__module__.partition(".")[0] != "pydantic"):
            found.add(f"all that {each.__qualname__} does not declare")
    return frozenset(found)


def _below(kind: type) -> list[type]:
    """The subclasses of a class, as many as are worth a look."""
    found = [kind]
    for each in found:
        # Of `type` itself it is another function.
        subclasses: list[type] = type.__subclasses__(each)
        found += [below for below in subclasses[:_MOST_SUBCLASSES] if below not in found]
        if len(found) > _MOST_SUBCLASSES:
            break
    return found[1:]


def typed_fields_of(kind: Any) -> dict[str, Any]:
    """The parts that a value has by its annotation with their types, as declared; without those of unknown types."""
    classes = classes_of(kind)
    if len(classes) != 1:
        return {}
    try:
        found = get_type_hints(classes[0])
    except (TypeError, NameError, AttributeError, SyntaxError):
        return {}
    parts = fields_of(kind)
    return {name: _read(said) for name, said in found.items() if name in parts}


def _read(annotation: Any) -> Any:
    """What an attribute gives of a value: of SQLAlchemy's `Mapped[int]` an `int`."""
    origin = get_origin(annotation)
    mapped = str(getattr(origin, "__module__", "")).startswith("sqlalchemy.") and origin.__name__ == "Mapped"
    return get_args(annotation)[0] if mapped else annotation


def may_be_missing(kind: Any, name: str) -> bool:
    """Whether a typed mapping may come without an item."""
    for each in classes_of(kind):
        # With annotations that are texts, the class itself does not know.
        said = str(getattr(each, "__annotations__", {}).get(name, ""))
        if name in getattr(each, "__optional_keys__", ()) or "NotRequired[" in said:
            return True
    return False


def inherited_by(kind: Any) -> tuple[type, tuple[str, ...]] | None:
    """What a value is beside what it keeps itself: `str`, `int`, `bytes`, `tuple` or `UUID`, and the names of that.

    None for any other type, and for a subclass that keeps no more than it inherits.
    """
    classes: list[type[Any]] = classes_of(kind)
    for each in classes:
        base = inherited_type(each)
        parts = () if base is None or issubclass(each, Enum) else _own_parts(each, base)
        if base is not None and parts:
            return base, parts
    return None


def _own_parts(kind: type, base: type) -> tuple[str, ...]:
    found: set[str] = set()
    for each in kind.__mro__:
        if not issubclass(base, each):
            own = vars(each)
            slots = own.get("__slots__", ())
            found |= {slots} if isinstance(slots, str) else {*slots}
            found |= {name for name, said in own.get("__annotations__", {}).items() if not _is_of_the_class(said)}
            found |= {name for method in ("__init__", "__new__") for name in set_in(own.get(method))}
    # What a named tuple names is what it inherits.
    found -= {*getattr(kind, "_fields", ())}
    return tuple(sorted(name for name in found if not name.startswith("__")))


def _is_of_the_class(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return "ClassVar" in annotation
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def classes_of(annotation: Any) -> list[type]:
    """The plain classes that an annotation names; None and `object` are none."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return classes_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in classes_of(member)]
    kind = origin or _named_by(annotation) or annotation
    if kind is not annotation and not inspect.isclass(kind):
        return classes_of(kind)
    return [kind] if inspect.isclass(kind) and kind not in (type(None), inspect.Parameter.empty, object) else []


def _named_by(annotation: Any) -> Any:
    """What a `type` alias or a `NewType` stands for."""
    return getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)


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


def unfit(annotation: Any) -> str | None:
    """The name of an annotated type that no cache key can hold; None where one can, or where nothing says."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return unfit(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return next((found for member in get_args(annotation) if (found := unfit(member))), None)
    if origin is Literal or annotation in (inspect.Parameter.empty, Any, None, object):
        return None
    kind = origin or _named_by(annotation) or annotation
    if not inspect.isclass(kind):
        return None if kind is annotation else unfit(kind)
    if origin is tuple:
        return next((found for member in get_args(annotation) if member is not ... and (found := unfit(member))), None)
    if inherited_by(kind):
        return kind.__qualname__
    # Of the others that are abstract a value may be a text, too.
    open_ = (inspect.isabstract(kind) or getattr(kind, "_is_protocol", False)) and not issubclass(kind, Mapping)
    fit = open_ or issubclass(kind, _FIT)
    return None if fit else kind.__qualname__
