"""A ready function of tags for Debezium's change events: what changed in which table, old values and new ones."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal, cast

from fastapi_cacheinval import ConfigurationError, TagTemplate
from fastapi_cacheinval.contrib.kafka.cloudevents import opened
from fastapi_cacheinval.contrib.kafka.events import Half, change_of, payload
from fastapi_cacheinval.contrib.kafka.record import EVERYTHING, PoisonRecord, Record
from fastapi_cacheinval.contrib.kafka.rendering import Renderer
from fastapi_cacheinval.contrib.kafka.tables import Tables

__all__ = ["Debezium", "Explained", "debezium"]

Decode = Callable[[bytes], Any] | Callable[[bytes, Literal["key", "value"]], Any]

# A NUMERIC that comes as a number keeps all of its digits.
_from_json = partial(json.loads, parse_float=Decimal)


@dataclass(frozen=True, slots=True)
class Explained:
    """What `debezium()` has met: events by table, of those that are mapped and of those that nothing maps.

    `refused` are the columns that no tag could be made of, as `table.column`, each with the reason.
    """

    seen: Mapping[str, int]
    ignored: Mapping[str, int]
    refused: Mapping[str, str]


class Debezium:
    """The function of tags that `debezium` makes."""

    def __init__(
        self,
        templates: Mapping[str, tuple[TagTemplate, ...]],
        truncated: frozenset[str],
        decode: Callable[[bytes, Literal["key", "value"]], Any],
        plain: Iterable[str],
    ) -> None:
        self._templates = templates
        self._truncated = truncated
        self._decode = decode
        self._tables = Tables(templates.keys())
        self._renderer = Renderer(plain)

    def __call__(self, record: Record) -> Iterable[str] | None:
        """The tags that a record purges; raises `PoisonRecord`, and an `OSError` of `decode`."""
        broken: PoisonRecord | None = None
        try:
            key = payload(self._decoded(record.key, "key"))
        except PoisonRecord as error:
            # What the value tells is enough, most often.
            broken, key = error, Half(broken=True)
        value, said = opened(
            self._decoded(record.value, "value"), record.headers, lambda data: self._decoded(data, "value")
        )
        try:
            change = change_of(record.topic, key, payload(value), self._tables, said)
        except PoisonRecord as error:
            raise (broken or error) from None
        if change is None:
            return None
        return self._truncated if change.truncated else self._renderer(self._templates[change.table], change)

    @property
    def ignored(self) -> Mapping[str, int]:
        """How many events came of each table that nothing maps."""
        return self._tables.ignored

    def explain(self) -> Explained:
        """What it has met so far."""
        return Explained(self._tables.seen, self._tables.ignored, self._renderer.refused)

    def _decoded(self, data: bytes | None, half: Literal["key", "value"]) -> Any:
        if data is None:
            return None
        try:
            return self._decode(data, half)
        except OSError:
            # Where a schema is kept, say, cannot be reached: nothing is wrong with the record.
            raise
        except Exception as error:
            raise PoisonRecord(f"Its {half} cannot be decoded ({type(error).__name__}).{_hint(data)}") from error


def debezium(
    tables: Mapping[str, Iterable[str]],
    *,
    wide: Iterable[str] | None = None,
    decode: Decode = _from_json,
    plain: Iterable[str] = (),
) -> Debezium:
    """A `tags` function for `KafkaSource` from tag templates by table: `{"products": ["product:{id}", "products"]}`.

    A table is named as `table`, `schema.table` or `database.schema.table`, a collection of MongoDB as `collection` or
    `database.collection`; columns stand in braces, and both the old and the new row fill them, and the key. A truncated
    table purges `wide`, by default everything. `decode` makes a value of the bytes of a record's key or value, for what
    is not JSON; one that needs a second argument is told `"key"` or `"value"`. `plain` names columns, as
    `table.column` with the table as it is mapped, whose values without a schema are text or numbers and nothing else.

    Events of MongoDB's own connector are read, too. Heartbeats, transaction metadata and schema changes change nothing.
    A tombstone on a topic that nothing maps cannot be read, unless its key names the table, or events of other tables
    came on the topic before. Records of other tables are counted in `ignored` of what is returned, and warned of once a
    table; `explain()` tells all that was met.

    Raises `ConfigurationError` when made; the function raises `PoisonRecord`, with what could be `readable` all the
    same, and an `OSError` of `decode`.
    """
    templates = _checked(tables)
    if not callable(decode):  # pyright: ignore[reportUnnecessaryComparison]
        raise ConfigurationError('decode is a function of bytes, and of "key" or "value" if it needs to know.')
    for name, given in (("wide", wide), ("plain", plain)):
        if isinstance(given, str):
            raise ConfigurationError(f"{name} is a list, not {given!r}.")
    of_tables = {f"{table}.{column}" for table, each in templates.items() for one in each for column in one.names}
    if not set(plain) <= of_tables:
        unknown = ", ".join(sorted(set(plain) - of_tables))
        raise ConfigurationError(f"plain names {unknown}, which no template takes; they take {sorted(of_tables)}.")
    tags_of_all = (TagTemplate.parse(tag, names=()).render({}) for tag in wide or ())
    truncated = EVERYTHING if wide is None else frozenset(filter(None, tags_of_all))
    return Debezium(templates, truncated, _of_both(decode), plain)


def _of_both(decode: Any) -> Callable[[bytes, Literal["key", "value"]], Any]:
    """The user's function as one of bytes and the half they are of, whether it asks for the half or not."""
    try:
        inspect.signature(decode).bind(b"")
    except TypeError:
        return cast("Callable[[bytes, Literal['key', 'value']], Any]", decode)
    except ValueError:
        # Of C, which tells nothing of its arguments.
        pass
    return lambda data, _: decode(data)


def _hint(data: bytes) -> str:
    # https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
    return " It is in the format of a schema registry: give debezium() decode=." if data[:1] == b"\0" else ""


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
