"""A ready function of tags for Debezium's change events: what changed in which table, old values and new ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.kafka.events import Change, change_of
from fastapi_cacheinval.contrib.kafka.record import EVERYTHING, PoisonRecord, Record
from fastapi_cacheinval.contrib.kafka.templates import Template

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

    Raises `ConfigurationError` when made; the function raises `PoisonRecord` and nothing else.
    """
    templates = _checked(tables)
    if not callable(decode):  # pyright: ignore[reportUnnecessaryComparison]
        raise ConfigurationError("decode is a function of bytes.")
    if isinstance(wide, str):
        raise ConfigurationError(f"wide is a list of tags, not {wide!r}.")
    truncated = EVERYTHING if wide is None else frozenset(Template.parse(tag).literal() for tag in wide)

    def tags(record: Record) -> Iterable[str] | None:
        change = change_of(record.topic, _decoded(decode, record.key), _decoded(decode, record.value), templates)
        if change is None:
            return None
        return truncated if change.truncated else _rendered(templates[change.table], change)

    return tags


def _checked(tables: object) -> dict[str, tuple[Template, ...]]:
    if not isinstance(tables, Mapping) or not tables:
        raise ConfigurationError('debezium() takes a mapping such as {"products": ["product:{id}", "products"]}.')
    found: dict[str, tuple[Template, ...]] = {}
    for table, texts in tables.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(table, str) or not table:
            raise ConfigurationError(f"A table is named by a str, not {table!r}.")
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise ConfigurationError(f"The tags of table {table!r} are a list of templates, not {texts!r}.")
        found[table] = tuple(Template.parse(text) for text in cast("Iterable[object]", texts))
        if not found[table]:
            raise ConfigurationError(f"The table {table!r} has no tags.")
    return found


def _decoded(decode: Decode, data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return decode(data)
    except Exception as error:
        raise PoisonRecord(f"It cannot be decoded ({type(error).__name__}).") from error


def _rendered(templates: tuple[Template, ...], change: Change) -> list[str]:
    found: dict[str, None] = {}
    for template in templates:
        for row in change.rows:
            values = {name: _text(row[name], name) for name in template.names if name in row}
            if values.keys() != set(template.names):
                missing = ", ".join(sorted(set(template.names) - values.keys()))
                if row is change.whole:
                    raise PoisonRecord(f"The table {change.table!r} has no column {missing}.")
            elif None not in values.values():
                found[template.render(values)] = None
    return list(found)


def _text(value: object, name: str) -> str | None:
    match value:
        case None | "":
            return None
        case str():
            # A large value that the database did not write down again: the old row has it, or nobody.
            return None if value == _UNSTORED else value
        case int() | float():
            try:
                return str(value)
            except ValueError:
                raise PoisonRecord(f"The column {name!r} has a number of too many digits.") from None
        case _:
            raise PoisonRecord(f"The column {name!r} is neither text nor a number.")
