"""What becomes of a parameter before it stands in a tag: its type, defaults, constraints and validators, by name.

A release that converts it otherwise gives what it stores other tags, and purges others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, cast

from fastapi_cacheinval.core.keys import as_bytes, encode
from fastapi_cacheinval.routes.bindings import Binding, field_of
from fastapi_cacheinval.routes.fastapi_private import Field
from fastapi_cacheinval.routes.held_values import KEY, portrait_of

__all__ = ["conversions"]

# A type may be made of itself.
_DEEPEST = 24
# What describes a type to others, and what has a number of this process in it.
_BESIDE = frozenset({"metadata", "ref", "schema_ref", "serialization"})


def conversions(names: Iterable[str], bindings: Mapping[str, Binding]) -> Iterator[bytes]:
    """How each name of a template gets its value, the same in every process."""
    for name in sorted(set(names)):
        found = field_of(bindings[name]) if name in bindings else None
        if found is None:
            # The path's own convertor gives it, which stands in the route's template.
            yield encode((as_bytes(name),))
        else:
            field, place = found
            yield encode((*map(as_bytes, (name, *place, field.alias)), *_said(_schema_of(field))))


def _schema_of(field: Field) -> Any:
    schema: Any = getattr(getattr(field, "_type_adapter", None), "core_schema", None)
    # What FastAPI does not document; without it, what the author has written.
    return repr(field.field_info.annotation) if schema is None else schema


def _said(schema: Any, depth: int = 0) -> Iterator[bytes]:
    """What a schema of pydantic's core says, in an order of its own."""
    if depth > _DEEPEST:
        return
    if isinstance(schema, Mapping):
        said = cast("Mapping[str, Any]", schema)
        for key in sorted({*map(str, said)} - _BESIDE):
            yield encode((b"M", as_bytes(key), *_said(said.get(key), depth + 1)))
    elif isinstance(schema, list | tuple):
        for each in cast("Sequence[Any]", schema):
            yield encode((b"L", *_said(each, depth + 1)))
    elif isinstance(schema, Enum):
        yield encode((b"E", *map(as_bytes, (type(schema).__qualname__, schema.name)), *_said(schema.value, depth + 1)))
    elif schema is None or isinstance(schema, bool | int | float | str | bytes | re.Pattern):
        yield encode((b"V", as_bytes(f"{type(cast('Any', schema)).__name__} {schema!r}")))
    elif callable(schema):
        yield encode((b"F", *portrait_of(schema, KEY).parts))
    else:
        yield encode((b"O", as_bytes(f"{type(schema).__module__}.{type(schema).__qualname__}")))
