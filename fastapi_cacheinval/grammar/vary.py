"""Vary: the request fields that selected a response (RFC 9110 §12.5.5, RFC 9111 §4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from fastapi_cacheinval.grammar.fields import OWS, RawHeaders, is_token, values

__all__ = ["ANY_FIELD", "AnyField", "add_vary", "parse_vary", "serialise_vary", "written_names"]


class AnyField(Enum):
    """The `*` of `Vary`: more than the request's fields selected the response; nothing matches."""

    ANY_FIELD = "*"


ANY_FIELD: Final = AnyField.ANY_FIELD


def parse_vary(values: Iterable[bytes]) -> tuple[bytes, ...] | AnyField:
    """The field names of all lines, lower-case, without duplicates, sorted; never raises.

    A `*` anywhere wins. A member that is no field name counts as `*`, since what it meant cannot be
    compared, and a response that matches too rarely is the safe mistake.
    """
    names = _members(values)
    if b"*" in names or not all(map(is_token, names)):
        return ANY_FIELD
    return tuple(sorted(names))


def serialise_vary(names: tuple[bytes, ...] | AnyField) -> bytes:
    """The field's value, empty for no names."""
    return b"*" if names is ANY_FIELD else b", ".join(names)


def add_vary(headers: RawHeaders, names: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """The lines, with the names that `Vary` lacks added to its last line, else in a new line.

    Names are compared without case and written as given, once. Nothing is added to a `*`.
    """
    lines = list(headers)
    present = _members(values(headers, b"vary"))
    if b"*" in present:
        return lines
    missing = {name.lower(): name for name in names if name.lower() not in present}
    if not missing:
        return lines
    added = b", ".join(missing.values())
    for index in range(len(lines) - 1, -1, -1):
        key, value = lines[index]
        if key == b"vary":
            lines[index] = (key, value + b", " + added if value.strip(OWS) else added)
            return lines
    lines.append((b"vary", added))
    return lines


def written_names(lines: Iterable[bytes]) -> list[bytes]:
    """The members of all lines, as they are written and in their order."""
    return [member for line in lines for piece in line.split(b",") if (member := piece.strip(OWS))]


def _members(lines: Iterable[bytes]) -> set[bytes]:
    return {member.lower() for member in written_names(lines)}
