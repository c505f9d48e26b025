"""Range, Content-Range and If-Range, for bytes (RFC 9110 §14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from fastapi_cacheinval.grammar.fields import OWS

__all__ = [
    "MAX_RANGES",
    "ContentRange",
    "Span",
    "parse_content_range",
    "parse_range",
    "resolve",
    "serialise_content_range",
    "serialise_range",
]

MAX_RANGES: Final = 64
"""Ranges of one request that are served apart; a request with more gets the whole."""

# More digits than any length has: int() of very long text is slow and then raises.
_SPEC: Final = re.compile(rb"([0-9]{0,18})-([0-9]{0,18})")
_CONTENT_RANGE: Final = re.compile(
    rb"[ \t]*bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)[ \t]*", re.IGNORECASE
)


class Span(NamedTuple):
    """One range as it was asked for: `first` to `last`, or the last `last` bytes where `first` is None."""

    first: int | None
    last: int | None


class ContentRange(NamedTuple):
    """The bytes from `first` to `last`, both included, of a representation of `complete` bytes, None: unknown."""

    first: int
    last: int
    complete: int | None


def parse_range(values: Sequence[bytes]) -> tuple[Span, ...] | None:
    """The ranges asked for; None where the field is to be ignored: no line or several, malformed, other units.

    Never raises. More than 64 ranges count as malformed.
    """
    if len(values) != 1:
        return None
    unit, equals, listed = values[0].partition(b"=")
    if not equals or unit.strip(OWS).lower() != b"bytes":
        return None
    members = [member for piece in listed.split(b",", MAX_RANGES + 8) if (member := piece.strip(OWS))]
    if not 0 < len(members) <= MAX_RANGES:
        return None
    spans: list[Span] = []
    for member in members:
        match = _SPEC.fullmatch(member)
        if match is None or member == b"-":
            return None
        first = int(match[1]) if match[1] else None
        last = int(match[2]) if match[2] else None
        if first is not None and last is not None and last < first:
            return None
        spans.append(Span(first, last))
    return tuple(spans)


def serialise_range(spans: Sequence[Span]) -> bytes:
    """The field's value."""
    texts = [
        b"%b-%b" % (b"" if span.first is None else b"%d" % span.first, b"" if span.last is None else b"%d" % span.last)
        for span in spans
    ]
    return b"bytes=" + b",".join(texts)


def resolve(spans: Sequence[Span], length: int) -> list[tuple[int, int]]:
    """The satisfiable ranges in a representation of `length` bytes, as first and last byte; empty: answer 416.

    Those that overlap or touch are joined where the request has several, in the order of their first.
    """
    found: list[tuple[int, int]] = []
    for span in spans:
        if span.first is None:
            wanted = min(span.last or 0, length)
            first, last = length - wanted, length - 1
        else:
            first, last = span.first, length - 1 if span.last is None else min(span.last, length - 1)
        if first <= last and first < length:
            found.append((first, last))
    return _joined(found)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    ordered = sorted(ranges)
    if all(one[1] + 1 < other[0] for one, other in pairwise(ordered)):
        return ranges
    joined = [ordered[0]]
    for first, last in ordered[1:]:
        if first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def parse_content_range(value: bytes) -> ContentRange | None:
    """The range that a part is of; None for anything malformed, contradictory, unsatisfied or in other units."""
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    complete = None if match[3] == b"*" else int(match[3])
    if last < first or (complete is not None and last >= complete):
        return None
    return ContentRange(first, last, complete)


def serialise_content_range(part: ContentRange) -> bytes:
    """The field's value."""
    complete = b"*" if part.complete is None else b"%d" % part.complete
    return b"bytes %d-%d/%b" % (part.first, part.last, complete)
