"""A ready function of tags for Debezium's change events: what changed in which table, old values and new ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from fastapi_cacheinval import ConfigurationError, TagTemplate
from fastapi_cacheinval.contrib.kafka.events import RowChange, change_of
from fastapi_cacheinval.contrib.kafka.record import EVERYTHING, PoisonRecord, Record

__all__ = ["debezium"]

Decode = Callable[[bytes], Any]

_UNSTORED = "__debezium_unavailable_value"


def debezium(
    tables: Mapping[str, Iterable[str]],
    *,
    wide: Iterable[str] | None = None,
    decode: Decode = json.loads,
) -> Callable[[Record], Iterable[str] | None]:
    """A `tags` function for `KafkaSource` from tag templates by table: `{"products": ["product:{id}", "products"]}`.

    A table is named as `table`, `schema.table` or `database.schema.table`; columns stand in braces, and both the old
    and the new row fill them, and the key. A truncated table purges `wide`, by default everything. `decode` makes a
    value of the bytes of a record's key or value, for what is not JSON. Records of other tables, heartbeats,
    transaction metadata and schema changes change nothing.

    Raises `ConfigurationError` when made; the function raises `PoisonRecord`, and an `OSError` of `decode`.
    """
    templates = _checked(tables)
    if not callable(decode):  # pyright: ignore[reportUnnecessaryComparison]
        raise ConfigurationError("decode is a function of bytes.")
    if isinstance(wide, str):
        raise ConfigurationError(f"wide is a list of tags, not {wide!r}.")
    tags_of_all = (TagTemplate.parse(tag, names=()).render({}) for tag in wide or ())
    truncated = EVERYTHING if wide is None else frozenset(filter(None, tags_of_all))

    def tags(record: Record) -> Iterable[str] | None:
        change = change_of(record.topic, _decoded(decode, record.key), _decoded(decode, record.value), templates)
        if change is None:
            return None
        return truncated if change.truncated else _rendered(templates[change.table], change)

    return tags


def _checked(tables: object) -> dict[str, tuple[TagTemplate, ...]]:
    if not isinstance(tables, Mapping) or not tables:
        raise ConfigurationError('debezium() takes a mapping such as {"products": ["product:{id}", "products"]}.')
    found: dict[str, tuple[TagTemplate, ...]] = {}
    for table, texts in tables.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(table, str) or not table:
            raise ConfigurationError(f"A table is named by a str, not {table!r}.")
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise ConfigurationError(f"The tags of table {table!r} are a list of templates, not {texts!r}.")
        found[table] = tuple(TagTemplate.parse(text, names="columns") for text in cast("Iterable[str]", texts))
        if not found[table]:
            raise ConfigurationError(f"The table {table!r} has no tags.")
    return found


def _decoded(decode: Decode, data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return decode(data)
    except OSError:
        # Where a schema is kept, say, cannot be reached: nothing is wrong with the record.
        raise
    except Exception as error:
        raise PoisonRecord(f"It cannot be decoded ({type(error).__name__}).") from error


def _rendered(templates: tuple[TagTemplate, ...], change: RowChange) -> list[str]:
    found: dict[str, None] = {}
    for template in templates:
        for row in change.rows:
            values = {name: _told(row[name], name) for name in template.names if name in row}
            if values.keys() != set(template.names):
                missing = ", ".join(sorted(set(template.names) - values.keys()))
                if row is change.whole:
                    raise PoisonRecord(f"The table {change.table!r} has no column {missing}.")
                continue
            try:
                tag = template.render(values)
            except ValueError:
                raise PoisonRecord(f"The tag {template.text!r} has a number of too many digits.") from None
            if tag is not None:
                found[tag] = None
    return list(found)


def _told(value: object, name: str) -> object:
    """A column's value; None for a large one that was not written down again: the old row has it, or nobody."""
    if isinstance(value, Mapping | list):
        raise PoisonRecord(f"The column {name!r} is neither text nor a number.")
    return None if value == _UNSTORED else value
