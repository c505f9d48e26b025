"""Frozen values as JSON has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any, cast

from starlette.responses import JSONResponse

__all__ = ["Told", "as_json", "plain"]


def as_json(content: Any) -> bytes:
    """JSON on one line, in ASCII: a client's path may have characters that no UTF-8 has."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class Told(JSONResponse):
    """An answer with JSON in ASCII."""

    def render(self, content: Any) -> bytes:
        """The content as bytes."""
        return as_json(content)


def plain(value: object) -> Any:
    """A value as JSON can carry it: what is not finite is null, and of foreign objects the type is told."""
    match value:
        case None | bool() | int() | str():
            return value.value if isinstance(value, Enum) else value
        case float():
            return value if isfinite(value) else None
        case Mapping():
            return {str(name): plain(each) for name, each in cast("Mapping[object, object]", value).items()}
        case tuple() | list() | frozenset() | set():
            return [plain(each) for each in cast("tuple[object, ...]", value)]
        case bytes():
            return value.hex()
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return type(value).__name__
