"""How a name in a tag template gets its validated value from a request, as FastAPI would validate it."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, is_typeddict

from pydantic import BaseModel
from starlette.requests import Request

from fastapi_cacheinval.core.tags import TagTemplate
from fastapi_cacheinval.errors import CacheinvalError
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.fastapi_private import Field, solve_fields
from fastapi_cacheinval.routes.parameters import model_of, request_names

__all__ = [
    "Binding",
    "InvalidParameter",
    "StructuredParameter",
    "UnknownParameter",
    "bind",
    "field_of",
    "rendered",
    "rendered_all",
]


class InvalidParameter(CacheinvalError):
    """A parameter that a tag names and that does not pass FastAPI's validation: the route answers 422.

    `name` is the parameter.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"The parameter {name!r} is invalid or missing, so no tag can be made of it.")


class UnknownParameter(CacheinvalError):
    """A template's name that no path or query parameter of the route has; `name` is it."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name!r} is neither a path nor a declared query parameter")


class StructuredParameter(CacheinvalError):
    """A template's name that stands for a list, set, tuple, mapping or model; `name` is it."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name!r} holds a list, set, tuple, mapping or model, which is no part of a tag")


class Binding(Protocol):
    """One name of a template, bound to a route's parameter."""

    def value(self, request: Request) -> object:
        """The validated value of this request; raises `InvalidParameter` where validation fails."""
        ...


@dataclass(frozen=True, slots=True)
class _Declared:
    """A declared parameter, or a field of a query model; its neighbours are validated with it, as FastAPI does."""

    fields: tuple[Field, ...]
    in_path: bool
    field: str
    member: str | None

    def value(self, request: Request) -> object:
        received: Mapping[str, Any] = request.path_params if self.in_path else request.query_params
        values, invalid = solve_fields(self.fields, received)
        if invalid or self.field not in values:
            raise InvalidParameter(self.member or self.field)
        value = values[self.field]
        # An optional model that the request leaves out is None, and so are its fields.
        return value if self.member is None or value is None else getattr(value, self.member)


def field_of(binding: Binding) -> tuple[Field, tuple[str, ...]] | None:
    """The declared parameter that a name is bound to, and its place in the request; None where it is none."""
    if not isinstance(binding, _Declared):
        return None
    [field] = (field for field in binding.fields if field.name == binding.field)
    return field, ("path" if binding.in_path else "query", binding.member or "")


@dataclass(frozen=True, slots=True)
class _Undeclared:
    """A name of the path that nothing in the tree declares: as the path's own convertor gives it."""

    name: str

    def value(self, request: Request) -> object:
        try:
            return request.path_params[self.name]
        except KeyError:
            raise InvalidParameter(self.name) from None


@dataclass(frozen=True, slots=True)
class _Never:
    """A name that cannot be bound: the author hears of it at start-up, a client never."""

    name: str

    def value(self, request: Request) -> object:
        raise InvalidParameter(self.name)


def _is_structured(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_structured(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return any(_is_structured(member) for member in get_args(annotation))
    kind: Any = origin or getattr(annotation, "__value__", None) or annotation
    if kind is not annotation and not isinstance(kind, type):
        return _is_structured(kind)
    return isinstance(kind, type) and _is_structured_type(kind)


def _is_structured_type(kind: Any) -> bool:
    # Collection stands for lists, sets, tuples, mappings and what is like them.
    if issubclass(kind, Collection):
        return not issubclass(kind, str | bytes)
    return issubclass(kind, BaseModel) or is_dataclass(kind) or is_typeddict(kind)


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    others: frozenset[str]
    annotation: Any
    binding: _Declared


def _candidates(node: Node) -> Iterator[_Candidate]:
    for in_path, found in ((True, node.declares.path_params), (False, node.declares.query_params)):
        fields: tuple[Field, ...] = tuple(found)
        for field in fields:
            info = field.field_info
            others = frozenset(request_names(field.name, info))
            yield _Candidate(field.name, others, info.annotation, _Declared(fields, in_path, field.name, None))
            model = None if in_path else model_of(field)
            if model is None:
                continue
            for name, inner in model.model_fields.items():
                binding = _Declared(fields, in_path, field.name, name)
                yield _Candidate(name, frozenset(request_names(name, inner)), inner.annotation, binding)


def _find(name: str, root: Node) -> _Candidate | None:
    """The handler's own parameter first, then the tree's in order; a Python name before an alias."""
    for node in root.walk():
        candidates = list(_candidates(node))
        for candidate in candidates:
            if candidate.name == name:
                return candidate
        for candidate in candidates:
            if name in candidate.others:
                return candidate
    return None


def bind(
    names: Iterable[str], root: Node, in_path: Collection[str], otherwise: Mapping[str, Binding]
) -> tuple[dict[str, Binding], list[CacheinvalError]]:
    """Every name with its binding, and what is wrong with those that cannot be bound.

    `in_path` are the names in the path's template, mounts included; `otherwise` serves the names that
    overridden dependencies no longer declare.
    """
    bindings: dict[str, Binding] = {}
    wrong: list[CacheinvalError] = []
    for name in dict.fromkeys(names):
        found = _find(name, root)
        if found is not None and _is_structured(found.annotation):
            wrong.append(StructuredParameter(name))
        elif found is not None:
            bindings[name] = found.binding
            continue
        elif name in otherwise or name in in_path:
            bindings[name] = otherwise.get(name) or _Undeclared(name)
            continue
        else:
            wrong.append(UnknownParameter(name))
        bindings[name] = _Never(name)
    return bindings, wrong


def rendered(template: TagTemplate, bindings: Mapping[str, Binding], request: Request) -> str | None:
    """A tag for the validated parameters, None where nothing is left of it.

    Raises `InvalidParameter`, and whatever else a validator of the author's raises: no purge may be lost for that.
    """
    return template.render(
        {
            name: bindings[name].value(request) if name in bindings else request.path_params.get(name)
            for name in template.names
        }
    )


def rendered_all(
    templates: Iterable[TagTemplate],
    bindings: Mapping[str, Binding],
    request: Request,
    dropped: Callable[[], None] = lambda: None,
) -> tuple[str, ...] | None:
    """The tags of what a route stores for a request; None where a parameter is not valid, and so nothing is stored.

    `dropped` is told of each template that nothing is left of.
    """
    tags: dict[str, None] = {}
    for template in templates:
        try:
            tag = rendered(template, bindings, request)
        except Exception:  # noqa: BLE001  # a validator of the author's may raise anything
            return None
        if tag is None:
            dropped()
        else:
            tags[tag] = None
    return tuple(tags)
