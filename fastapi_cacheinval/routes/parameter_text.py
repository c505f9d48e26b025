"""A parameter of a handler as a dependency that takes it in the handler's place: the text that an author writes."""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath
from pydantic_core import PydanticUndefined

from fastapi_cacheinval.routes.fastapi_private import Field
from fastapi_cacheinval.routes.key_texts import key_of_text, part_text
from fastapi_cacheinval.routes.names import bare_name
from fastapi_cacheinval.routes.parameters import model_of
from fastapi_cacheinval.routes.partition_types import unfit

__all__ = ["MovedParameter", "moved_parameter"]

_SIMPLE = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class MovedParameter:
    """A dependency that takes what a handler took: its `definition`, the handler's `parameter`, and the partition."""

    name: str
    definition: str
    parameter: str
    partition: str


def moved_parameter(field: Field, kind: str, alias: str) -> MovedParameter:
    """What takes the place of one `Cookie()` or `Header()`, which `kind` says; `alias` is its name in the request.

    It is declared as the handler declares it, so that it is read, checked and converted in the same way. Where its type
    is none that can be told apart in a key, the dependency takes the text that is sent.
    """
    info, parameter = field.field_info, field.name
    name = f"{parameter}_of_caller"
    annotation, default = info.annotation, _default(info)
    key: str | None = ""
    model = model_of(field)
    if model is not None:
        # Without one, each of its fields has its own.
        default = default or ""
        # A field that nothing is sure to tell apart is no part of a key, so that the response is not stored.
        fields = {f"value.{name}": part.annotation for name, part in model.model_fields.items()}
        parts = [part_text(value, annotation) or value for value, annotation in fields.items()]
        key = f"lambda value: ({', '.join(parts)},)"
    elif unfit(annotation):
        key = key_of_text(annotation)
    if key is None or default is None:
        annotation, default, key = str | None, " = None", ""
    said = _type_text(annotation)
    arguments = _arguments(info, alias, model=model is not None)
    return MovedParameter(
        name,
        f"def {name}({parameter}: Annotated[{said}, {kind}({arguments})]{default}) -> {said}: return {parameter}",
        f"{parameter}: Annotated[{said}, Depends({name})]",
        f"PartitionBy({name}, key={key})" if key else name,
    )


def _arguments(info: Any, alias: str, *, model: bool) -> str:
    if model:
        return "" if getattr(info, "convert_underscores", True) else "convert_underscores=False"
    chosen = info.validation_alias
    if isinstance(chosen, AliasChoices | AliasPath):
        return f"validation_alias={_alias_text(chosen)}"
    return f"alias={alias!r}"


def _alias_text(alias: str | AliasPath | AliasChoices) -> str:
    if isinstance(alias, str):
        return repr(alias)
    parts = alias.choices if isinstance(alias, AliasChoices) else alias.path
    said = ", ".join(_alias_text(part) if isinstance(part, AliasPath) else repr(part) for part in parts)
    return f"{type(alias).__name__}({said})"


def _default(info: Any) -> str | None:
    """What stands behind the declaration; None for a default that cannot be written down."""
    if info.default_factory is not None:
        return None
    if info.default is PydanticUndefined or info.default is ...:
        return ""
    return f" = {info.default!r}" if type(info.default) in _SIMPLE else None


def _type_text(annotation: Any) -> str:
    """A type as it is written where its name is imported."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is types.NoneType:
        return "None"
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_text, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if arguments:
        said = ", ".join("..." if each is ... else _type_text(each) for each in arguments)
        return f"{_type_text(origin)}[{said}]"
    if inspect.isclass(annotation):
        return bare_name(annotation)
    return str(annotation).rpartition(".")[2]
