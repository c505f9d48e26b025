"""Which table of the mapping an event is of, and what is known of those that are of none."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["Tables", "qualified", "suffixes"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

# Names beyond so many are counted together.
_MOST_NAMES = 1_000
_THE_REST = "other tables"


class Tables:
    """The tables that are mapped, how many events came of each, and how many of tables that nothing maps."""

    def __init__(self, mapped: Collection[str]) -> None:
        self._seen = dict.fromkeys(mapped, 0)
        self._ignored: dict[str, int] = {}
        # Topics that events of other tables came on, and those that events of mapped ones did by another name.
        self._of_others: set[str] = set()
        self._rerouted: set[str] = set()

    @property
    def seen(self) -> Mapping[str, int]:
        """How many events came of each table that is mapped."""
        return MappingProxyType(dict(self._seen))

    @property
    def ignored(self) -> Mapping[str, int]:
        """How many events came of each table that nothing maps, by its longest name."""
        return MappingProxyType(dict(self._ignored))

    def find(self, named: Iterable[str], topic: str) -> str | None:
        """The table by the names that its event tells, the longest first, or by the topic's; None counts as ignored."""
        told = tuple(named)
        by_topic = tuple(suffixes(topic))
        table = next((name for name in (*told, *by_topic) if name in self._seen), None)
        if table is None:
            if len(self._of_others) < _MOST_NAMES:
                self._of_others.add(topic)
            self._ignore(told[0] if told else topic)
            return None
        if table not in by_topic and len(self._rerouted) < _MOST_NAMES:
            self._rerouted.add(topic)
        self._seen[table] += 1
        return table

    def may_be_of(self, topic: str) -> bool:
        """Whether an event that names no table may be of a mapped one, though its topic has none's name."""
        known = any(name in self._seen for name in suffixes(topic))
        return not known and (topic in self._rerouted or topic not in self._of_others)

    def _ignore(self, name: str) -> None:
        if name not in self._ignored:
            if len(self._ignored) >= _MOST_NAMES:
                name = _THE_REST
            else:
                logger.warning(
                    "debezium() ignores the events of %r, which nothing maps. It maps %s.%s",
                    name,
                    ", ".join(map(repr, sorted(self._seen))),
                    self._hint(name),
                )
        self._ignored[name] = self._ignored.get(name, 0) + 1

    def _hint(self, name: str) -> str:
        short = name.rpartition(".")[2]
        for mapped in self._seen:
            bare = mapped.rpartition(".")[2]
            if bare.casefold() == short.casefold():
                return f" Names are compared letter by letter, and the longest that is mapped counts: is it {mapped!r}?"
            if short.casefold().startswith(f"{bare.casefold()}_"):
                return (
                    f" If it is a partition of {mapped!r}, set publish_via_partition_root on the publication, or map "
                    "it by its own name."
                )
        close = difflib.get_close_matches(short, [mapped.rpartition(".")[2] for mapped in self._seen], 1)
        return f" Is it {close[0]!r}?" if close else ""


def qualified(source: Mapping[str, Any]) -> Iterator[str]:
    """The names of the table, or the collection, that a `source` tells, the longest first."""
    table = source.get("table") or source.get("collection")
    if isinstance(table, str):
        known = [part for name in ("db", "schema") if isinstance(part := source.get(name), str) and part] + [table]
        yield from (".".join(known[first:]) for first in range(len(known)))


def suffixes(topic: str) -> Iterator[str]:
    """What a topic may name: `server.public.products`, `public.products`, `products`."""
    parts = topic.split(".")
    return (".".join(parts[first:]) for first in range(len(parts)))
