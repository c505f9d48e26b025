"""A parameter of a handler as a dependency that takes it in the handler's place: the text that an author writes."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from fastapi_cacheinval.routes.fastapi_private import Field
from fastapi_cacheinval.routes.key_texts import part_text
from fastapi_cacheinval.routes.own_code import unbound
from fastapi_cacheinval.routes.parameters import model_of
from fastapi_cacheinval.routes.partition_types import unfit

__all__ = ["MovedParameter", "moved_parameter"]


@dataclass(frozen=True, slots=True)
class MovedParameter:
    """A dependency that takes what a handler took: its `definition`, the handler's `parameter`, and the partition.

    `definition` is empty where nothing has the parameter's text; `partition` where nothing is sure to tell its values
    apart.
    """

    name: str
    definition: str
    parameter: str
    partition: str


def moved_parameter(field: Field, handler: Any) -> MovedParameter:
    """What takes the place of one `Cookie()` or `Header()` of a handler.

    It is declared in the handler's own words, so that it is read, checked and converted in the same way.
    """
    name, parameter = f"{field.name}_of_caller", field.name
    written = _written(handler, parameter)
    text, said = ("", "...") if written is None else written
    key = _key(field)
    return MovedParameter(
        name,
        f"def {name}({text}) -> {said}: return {parameter}" if text else "",
        f"{parameter}: Annotated[{said}, Depends({name})]",
        name if key == "value" else f"PartitionBy({name}, key=lambda value: {key})" if key else "",
    )


def _key(field: Field) -> str | None:
    """What of its value stands in a key; None where nothing is sure to tell such values apart."""
    annotation, model = field.field_info.annotation, model_of(field)
    if model is None:
        return part_text("value", annotation) if unfit(annotation) else "value"
    # Without a model, each of its fields has its own. What cannot be told apart is no part of a key, so that the
    # response is not stored.
    fields = {f"value.{name}": part.annotation for name, part in model.model_fields.items()}
    return f"({', '.join(part_text(value, annotation) or value for value, annotation in fields.items())},)"


def _written(handler: Any, name: str) -> tuple[str, str] | None:
    """A parameter as it stands in the source, and the type in it; None where that is not what FastAPI was shown."""
    function = unbound(inspect.unwrap(handler, stop=lambda each: "__signature__" in getattr(each, "__dict__", {})))
    if type(function) is not FunctionType or "__signature__" in vars(function):
        return None
    try:
        source = inspect.getsource(function.__code__)
        # Of a function inside of another, or of a class, the lines are indented.
        tree = ast.parse(f"if 1:\n{source}" if source[:1].isspace() else source)
    except Exception:  # noqa: BLE001 - every loaded module is asked for its file, and a lazy one may raise anything
        return None
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    node = next((node for node in found if node.name == function.__code__.co_name), None)
    if node is None:
        return None
    of = node.args
    placed = [*of.posonlyargs, *of.args]
    after = [None] * (len(placed) - len(of.defaults)) + of.defaults
    defaults = dict(zip((each.arg for each in (*placed, *of.kwonlyargs)), (*after, *of.kw_defaults), strict=True))
    annotations = {each.arg: each.annotation for each in (*placed, *of.kwonlyargs)}
    annotation, default = annotations.get(name), defaults.get(name)
    if annotation is None or isinstance(annotation, ast.Constant):
        return None
    text = f"{name}: {ast.unparse(annotation)}"
    return f"{text} = {ast.unparse(default)}" if default is not None else text, ast.unparse(_type_in(annotation))


def _type_in(annotation: ast.expr) -> ast.expr:
    """What a name or an expression annotates; of an alias of `Annotated` the alias."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        of = annotation.value
        if (of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")) == "Annotated":
            return annotation.slice.elts[0]
    return annotation
