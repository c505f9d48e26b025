"""What rows of the outbox say, and which of them go into one purge: pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

__all__ = ["Purge", "UnreadableRow", "in_few", "read"]

# A purge of more would take Redis longer than a few milliseconds, and at last longer than anybody waits for it.
MOST_TAGS = 1_000


@dataclass(frozen=True, slots=True)
class Purge:
    """What one or more rows ask for; `causes` are the trace contexts that they were written in."""

    ids: tuple[int, ...]
    tags: tuple[str, ...]
    soft: bool
    everything: bool
    causes: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that says nothing that could be purged: its number, why, and its column `tags` as it stands there."""

    id: int
    reason: str
    tags: object = field(repr=False)


def read(row: Sequence[Any]) -> Purge | UnreadableRow:
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
    return Purge((number,), named, bool(soft), bool(everything), _causes(trace))


def in_few(purges: Iterable[Purge]) -> list[Purge]:
    """The same in as few purges as their order and size allow, in which they are done when all before them are.

    Neighbours that are equally soft become one. Of a row with very many tags the last part has the number.
    """
    found: list[Purge] = []
    for purge in purges:
        for part in _parts(purge):
            last = found[-1] if found else None
            if (
                last is not None
                and (last.soft, last.everything) == (part.soft, part.everything)
                and len(last.tags) + len(part.tags) <= MOST_TAGS
            ):
                found[-1] = replace(
                    last, ids=last.ids + part.ids, tags=last.tags + part.tags, causes=last.causes + part.causes
                )
            else:
                found.append(part)
    return found


def _parts(purge: Purge) -> Iterator[Purge]:
    tags = purge.tags
    while len(tags) > MOST_TAGS:
        yield replace(purge, ids=(), tags=tags[:MOST_TAGS])
        tags = tags[MOST_TAGS:]
    yield replace(purge, tags=tags)


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
    fields = cast("dict[str, object]", found)
    return ({name: value for name, value in fields.items() if isinstance(value, str)},)
