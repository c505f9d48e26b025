"""Replies that hold fields by name, as one protocol version of Redis or the other gives them, and lines of the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi_cacheinval.bus.entries import LineError, decode_line
from fastapi_cacheinval.core.log_types import LogEntry

__all__ = ["by_name", "lines_of"]


def by_name(fields: Any) -> Mapping[Any, Any]:
    """The fields of a hash, or of an entry of a stream: names and values in turn, or a map of them already."""
    return fields if _is_map(fields) else dict(zip(fields[::2], fields[1::2], strict=False))


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


def lines_of(reply: Any) -> list[LogEntry]:
    """The lines in a range of the log's stream, in the reply's order, without what cannot be read."""
    entries: Iterable[Any] = reply
    found: list[LogEntry] = []
    for _, fields in entries:
        try:
            found.append(decode_line(by_name(fields)[b"m"]))
        except (LineError, KeyError):
            # Of a later release, or of somebody else.
            continue
    return found
