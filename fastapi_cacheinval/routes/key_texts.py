"""The key of a `PartitionBy` as its author would write it, for a type that no cache key can hold as it is."""

from __future__ import annotations

import re
import types
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin
from uuid import UUID

from pydantic import SecretBytes, SecretStr

from fastapi_cacheinval.routes.partition_types import (
    fields_of,
    inherited_by,
    is_a_mapping,
    made_of,
    may_be_missing,
    may_be_none,
    says_something,
    typed_fields_of,
    undeclared_of,
    unfit,
)

__all__ = ["KeyText", "key_text", "part_text"]

# Their texts tell all values apart.
_BY_TEXT = frozenset({float, Decimal, datetime, date, time, timedelta})
# What tells one user, tenant or account from another, the likeliest first.
_IDENTIFYING = ("id", "uuid", "pk", "user_id", "sub", "username", "login", "email", "credentials", "name")
# What may give two callers of one name, or one of them at two times, different pages.
_DIVIDING = re.compile(
    "account|admin|company|customer|domain|group|issuer|level|org|password|perm|realm|region|role|scope|staff|super|team|"
    "tenant|tier|workspace",
    re.IGNORECASE,
)
# So many parts make a line that one reads.
_MOST_PARTS = 8


class KeyText(NamedTuple):
    """A key, and what its author has to put into it; `told` is empty where the key tells all values apart."""

    text: str
    told: str = ""


def key_text(kind: Any, also: frozenset[str] = frozenset()) -> KeyText:
    """The key for a type: by all that a value has, as far as annotations say that; it may `also` have these parts."""
    if says_something(kind) and not unfit(kind):
        return KeyText("str")
    inherited = inherited_by(kind)
    if inherited is not None:
        base, names = inherited
        plain = "*value" if base is tuple else "value.int" if base is UUID else f"{base.__name__}(value)"
        return KeyText(_whole([plain, *(f"value.{name}" for name in names)], kind))
    fields, typed = fields_of(kind), typed_fields_of(kind)
    made = {name: part_text(_taken(kind, name), annotation) for name, annotation in typed.items()}
    parts = {name: part for name, part in made.items() if part is not None}
    if not parts or len(parts) > _MOST_PARTS:
        # A name alone would give whoever says it what belongs to the password.
        known = {name for name in fields if made.get(name, "") is not None}
        guess = next((name for name in _IDENTIFYING if name in known), "sub" if is_a_mapping(kind) else "id")
        used = [guess, *(name for name in sorted(known) if name != guess and _divides(kind, name))]
        parts = {name: made.get(name) or _taken(kind, name) for name in used}
    return KeyText(_whole([*parts.values()], kind), _told(kind, fields, parts, also))


def _divides(kind: Any, name: str) -> bool:
    members = [member for member in get_args(kind) if member is not types.NoneType]
    # Of several classes not each may have it.
    of_one = get_origin(kind) not in (Union, types.UnionType) or len(members) == 1
    return name == "password" or (of_one and _DIVIDING.search(name) is not None)


def _taken(kind: Any, name: str) -> str:
    if not is_a_mapping(kind):
        return f"value.{name}"
    return f"value.get({name!r})" if may_be_missing(kind, name) else f"value[{name!r}]"


def _whole(parts: list[str], kind: Any) -> str:
    key = parts[0] if len(parts) == 1 and not parts[0].startswith("*") else f"({', '.join(parts)})"
    return f"lambda value: value and {key}" if may_be_none(kind) else f"lambda value: {key}"


def _told(kind: Any, fields: frozenset[str], parts: dict[str, str], also: frozenset[str]) -> str:
    name = unfit(kind)
    beside = undeclared_of(kind) | (also - fields)
    left = [*sorted(fields - made_of(kind, parts.keys()) - parts.keys()), *sorted(beside)]
    if len(left) > _MOST_PARTS:
        left.sort(key=lambda name: name not in beside and not _DIVIDING.search(name))
    if not fields >= parts.keys():
        guess = "'sub'" if is_a_mapping(kind) else "id"
        has = "" if name is None else f": {name} has {', '.join(left)}" if fields else f" in a {name}"
        return f"In place of {guess} write what tells callers apart{has}."
    if not left:
        # A mapping may hold more than its type declares, as the claims of a token do.
        more = f"The key has {', '.join(parts)} of {name}: add what else of it a page may depend on."
        return more if is_a_mapping(kind) else ""
    shown = [*left[:_MOST_PARTS], "…"] if len(left) > _MOST_PARTS else left
    return f"The key has {', '.join(parts)} of {name}: add what else a page may depend on, of {', '.join(shown)}."


def part_text(value: str, annotation: Any) -> str | None:
    """What of a value stands in a key, for one of its fields; None where nothing is sure to tell these apart."""
    if isinstance(annotation, TypeVar):
        return None
    if says_something(annotation) and not unfit(annotation):
        return value
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    named = [member for member in members if member is not types.NoneType]
    kind = named[0] if len(named) == 1 else None
    if kind in _BY_TEXT:
        return f"repr({value})"
    if kind in (SecretStr, SecretBytes):
        made = f"{value}.get_secret_value()"
    elif get_origin(kind) is list and not any(map(unfit, get_args(kind))):
        made = f"tuple({value})"
    else:
        return None
    return made if len(members) == 1 else f"None if {value} is None else {made}"
