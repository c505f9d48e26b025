"""The tags of a change in a table, by its templates: a template that cannot be filled is refused, and no other."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi_cacheinval import TagTemplate
from fastapi_cacheinval.contrib.kafka.columns import Guessed, is_base64, is_unstored, of_bytes, readings
from fastapi_cacheinval.contrib.kafka.events import RowChange
from fastapi_cacheinval.contrib.kafka.logical import Unreadable
from fastapi_cacheinval.contrib.kafka.record import PoisonRecord
from fastapi_cacheinval.sources import Change

__all__ = ["Renderer"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

# One template for one row; more come of columns that have several readings each.
_MOST_READINGS = 256


class Renderer:
    """Makes tags of changes, and remembers the columns that it could not read, each of which it warns of once.

    `plain` are the columns whose values need no schema, as `table.column`.
    """

    def __init__(self, plain: Iterable[str]) -> None:
        self._plain = frozenset(plain)
        self._refused: dict[str, str] = {}
        # Columns without a schema in which bytes were seen: all of their texts may be bytes.
        self._of_bytes: dict[str, Unreadable] = {}
        # Columns without a schema in which something was seen that no bytes are written like.
        self._of_text: set[str] = set()

    @property
    def refused(self) -> Mapping[str, str]:
        """The columns that it could not read, with the reasons."""
        return dict(self._refused)

    def __call__(self, templates: tuple[TagTemplate, ...], change: RowChange) -> tuple[str, ...]:
        """The tags, each once; raises `PoisonRecord` with those of the other templates where one cannot be filled."""
        tags: dict[str, None] = {}
        problems: dict[str, None] = {}
        for template in templates:
            try:
                tags.update(dict.fromkeys(self._of_template(template, change)))
            except PoisonRecord as problem:
                problems[str(problem)] = None
        if problems:
            raise PoisonRecord(" ".join(problems), Change(tuple(tags)))
        return tuple(tags)

    def _of_template(self, template: TagTemplate, change: RowChange) -> Iterator[str]:
        for row in change.rows:
            missing = [name for name in template.names if name not in row]
            if missing and row is change.whole and not change.sparse:
                raise PoisonRecord(f"The table {change.table!r} has no column {', '.join(sorted(missing))}.")
            if missing:
                continue
            read = [self._read(change, row, name) for name in dict.fromkeys(template.names)]
            if math.prod(map(len, read)) > _MOST_READINGS:
                raise PoisonRecord(f"The tag {template.text!r} has columns with too many readings in all.")
            for values in itertools.product(*read):
                try:
                    tag = template.render(dict(zip(dict.fromkeys(template.names), values, strict=True)))
                except ValueError:
                    raise PoisonRecord(f"The tag {template.text!r} has a number of too many digits.") from None
                if tag is not None:
                    yield tag

    def _read(self, change: RowChange, row: Mapping[str, Any], name: str) -> tuple[object, ...]:
        value, column = row[name], f"{change.table}.{name}"
        if is_unstored(value):
            # The old row has it, if any has.
            if all(is_unstored(other.get(name, value)) for other in change.rows):
                raise self._problem(column, "was not told, since it did not change: set REPLICA IDENTITY FULL")
            return (None,)
        found = readings(value, name)
        if isinstance(value, Guessed):
            bare = value.value
            if column in self._plain and isinstance(bare, str | int):
                return (bare,)
            if isinstance(bare, str) and isinstance(found, Unreadable):
                self._of_bytes[column] = found
            elif isinstance(bare, str) and not isinstance(found, Unreadable):
                found = self._texts(column, bare, found)
            if isinstance(found, Unreadable) and isinstance(bare, str | int):
                raise self._problem(column, found.reason, f" If it is what it looks like, write plain=[{column!r}].")
        if isinstance(found, Unreadable):
            raise self._problem(column, found.reason)
        return found

    def _texts(self, column: str, text: str, found: tuple[object, ...]) -> tuple[object, ...] | Unreadable:
        """What a text may be in a column whose texts were all text, were bytes, or may have been either."""
        if not is_base64(text):
            if text and column not in self._of_bytes:
                self._of_text.add(column)
        elif column in self._of_bytes:
            return self._of_bytes[column]
        elif column not in self._of_text:
            return (*found, *of_bytes(text))
        return found

    def _problem(self, column: str, reason: str, way_out: str = "") -> PoisonRecord:
        text = f"The column {column!r} {reason}.{way_out}"
        if column not in self._refused:
            self._refused[column] = reason
            logger.warning("debezium() cannot make a tag of a column, and refuses the templates with it. %s", text)
        return PoisonRecord(text)
