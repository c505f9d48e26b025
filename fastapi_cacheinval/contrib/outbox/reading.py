"""What rows of the outbox say: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi_cacheinval.sources import Change
from fastapi_cacheinval.sources.changes import causes_in

__all__ = ["UnreadableRow", "read"]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that says nothing that could be purged: its number, why, and its column `tags` as it stands there."""

    id: int
    reason: str
    tags: object = field(repr=False)


def read(row: Sequence[Any]) -> Change | UnreadableRow:
    """What a row (`id`, `tags`, `soft`, `everything`, `trace`) asks for, its values as the database has them."""
    number, tags, soft, everything, trace = row
    if everything not in (0, 1) or soft not in (0, 1):
        return UnreadableRow(number, "its columns soft and everything are no booleans", tags)
    named: tuple[str, ...] = ()
    if not everything:
        found = _decoded(tags)
        if not isinstance(found, list):
            return UnreadableRow(number, "its column tags is no JSON list", tags)
        items = cast("list[object]", found)
        named = tuple(tag for tag in items if isinstance(tag, str))
        # A trigger writes null for a template that has nothing to name.
        if len(named) + items.count(None) != len(items):
            return UnreadableRow(number, "its column tags has something other than strings", tags)
    return Change(named, bool(soft), bool(everything), _causes(trace))


def _decoded(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str | bytes) else None
    except (ValueError, RecursionError):
        return None


def _causes(trace: object) -> tuple[Mapping[str, str], ...]:
    """A trace context that cannot be read costs a link, nothing else."""
    found = _decoded(trace)
    if not isinstance(found, dict):
        return ()
    return causes_in(cast("dict[str, object]", found).items())
