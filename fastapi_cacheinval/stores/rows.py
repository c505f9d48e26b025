"""Stored responses as rows of plain values, and back (format 1).

What comes back has been written by somebody else: the type and range of each value is checked. Rows may only grow at
their end, so that an older release of the same format reads what a newer one writes. Times are seconds relative to a
moment that the caller names, on whatever clock it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from math import inf, isfinite
from typing import Any, cast

from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.selecting import Selector, VaryRecord
from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.grammar.fields import RawHeaders, first, is_token
from fastapi_cacheinval.grammar.ranges import ContentRange

__all__ = [
    "MOST_PARTS",
    "common_number",
    "have_types",
    "pairs_of",
    "record_of",
    "record_row",
    "response_of",
    "response_row",
]

MOST_PARTS = 8192
"""The longest list in a row: a bound on the memory that a forged one can ask for."""

# What a field's value cannot hold (RFC 9110 §5.5): a server would end the connection over it, or send a line more.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SELECTOR = (bytes, bool)
_RESPONSE = (int, tuple, tuple, tuple, *[float] * 7, bool, bool)
_STEERING = (tuple, bool, bool)
_RECORD = (tuple, tuple, float)

# The policies' numbers and statuses, of which there are few: `weigh` counts on their being shared.
_MOST_COMMON = 1024
_floats: dict[float, float] = {}
_integers: dict[int, int] = {}
_routes: dict[str, str] = {}


def common_number(number: int) -> int:
    """The same number, one object for all that are equal."""
    known = _integers.get(number)
    if known is None:
        if len(_integers) >= _MOST_COMMON:
            _integers.clear()
        known = _integers[number] = number
    return known


def _common_float(number: float) -> float:
    known = _floats.get(number)
    if known is None:
        if len(_floats) >= _MOST_COMMON:
            _floats.clear()
        known = _floats[number] = number
    return known


def _common_route(route: Any) -> str | None:
    if route is None:
        return None
    have_types((route,), (str,))
    known = _routes.get(route)
    if known is None:
        if len(_routes) >= _MOST_COMMON:
            _routes.clear()
        known = _routes[route] = route
    return known


def _flat(pairs: Iterable[tuple[Any, Any]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(pairs))


def have_types(values: Iterable[Any], types: tuple[type, ...]) -> None:
    """Raise `ValueError` unless the values have exactly these types."""
    if tuple(map(type, values)) != types:
        raise ValueError("a value of another type")


def pairs_of(flat: tuple[Any, ...], empty: bytes | str) -> zip[tuple[Any, Any]]:
    """The pairs that were written one after the other; raises `TypeError` for one of another type than `empty`."""
    # The quickest way to ask for the type of each: joining raises for any other.
    joining: Any = empty
    joining.join(flat)
    return zip(flat[::2], flat[1::2], strict=True)


def _lines_of(flat: tuple[Any, ...]) -> zip[tuple[Any, Any]]:
    """The header lines that were written one after the other; raises for what no server can send."""
    lines, names = pairs_of(flat, b""), flat[::2]
    if names and not (all(names) and is_token(b"".join(names))):
        raise ValueError("a field's name that is no token")
    if _CONTROL.search(b"".join(flat[1::2])):
        raise ValueError("a control character in a field's value")
    return lines


def _bounded(*lists: tuple[Any, ...]) -> None:
    if max(map(len, lists)) > MOST_PARTS:
        raise ValueError("a list that no reader would take")


def response_row(stored: StoredResponse, now: float) -> tuple[Any, ...]:
    """The row of a response, without its key, body and stamp; times relative to `now`."""
    modified, etag = stored.last_modified, stored.etag
    times = (stored.created - now, stored.fresh_until - now, stored.fill_seconds)
    numbers = (stored.early_refresh, stored.stale_while_revalidate, stored.stale_if_error)
    calm = float(stored.early_refresh_from - now)
    _in_range(stored.status, (*times, *numbers, modified or 0.0), calm)
    headers, vary, withheld = _flat(stored.headers), _flat(stored.vary), _flat(stored.aside)
    _bounded(headers, stored.tags, vary, withheld)
    steering = None
    if isinstance(stored, SharedResponse):
        steering = (withheld, stored.for_all, stored.only_fresh, stored.part, stored.guessed, stored.ruled)
    return (
        stored.status,
        headers,
        stored.tags,
        vary,
        *map(float, times),
        *map(float, numbers),
        calm,
        stored.must_revalidate,
        stored.anonymous,
        # Most validators are also sent, and then they are one object again.
        True if etag is not None and etag == first(stored.headers, b"etag") else etag,
        None if modified is None else float(modified),
        steering,
        stored.route,
        _lifetime_of(stored.downstream_ttl),
        stored.counts_from_now,
    )


def response_of(
    row: tuple[Any, ...], body: bytes, *, key: bytes, stamp: Stamp, base: float, trace: str = ""
) -> StoredResponse:
    """The response of a row whose times are relative to `base`; raises `ValueError` or `TypeError` for none."""
    have_types(row[:13], _RESPONSE)
    status, flat, tags, vary, created, fresh, fill, early, revalidate, error, calm = row[:11]
    must_revalidate, anonymous, etag, modified, steering = row[11:16]
    _in_range(status, (created, fresh, fill, early, revalidate, error, modified or 0.0), calm)
    if modified is not None:
        have_types((modified,), (float,))
    headers = share(_lines_of(flat))
    "".join(tags)
    made: dict[str, Any] = {
        "key": key,
        "status": common_number(status),
        "headers": headers,
        "body": body,
        "etag": _validator(etag, headers),
        "last_modified": modified,
        "tags": tuple([ALL if tag == ALL else tag for tag in tags]),
        "vary": tuple(pairs_of(vary, b"")),
        "stamp": stamp,
        "created": base + created,
        "fresh_until": base + fresh,
        "early_refresh_from": base + calm,
        "fill_seconds": fill,
        "early_refresh": _common_float(early),
        "stale_while_revalidate": _common_float(revalidate),
        "stale_if_error": _common_float(error),
        "must_revalidate": must_revalidate,
        "anonymous": anonymous,
        "route": _common_route(row[16] if len(row) > 16 else None),
        "trace": trace,
        "downstream_ttl": _lifetime_of(row[17] if len(row) > 17 else None),
        "counts_from_now": _flag(row[18] if len(row) > 18 else False),
    }
    return StoredResponse(**made) if steering is None else _shared_of(steering, made)


def _in_range(status: int, numbers: tuple[float, ...], calm: float) -> None:
    # A sum is finite only where all that is in it is; and what is not a number is not below anything.
    # A 1xx is no final response.
    if not 200 <= status <= 999 or not isfinite(sum(numbers)) or min(numbers[2:6]) < 0 or not calm < inf:
        raise ValueError("a number out of range")


def _lifetime_of(given: Any) -> float | None:
    if given is None:
        return None
    have_types((given,), (float,))
    if not 0 <= given < inf:
        raise ValueError("a lifetime out of range")
    return _common_float(given)


def _flag(given: Any) -> bool:
    have_types((given,), (bool,))
    return bool(given)


def _validator(etag: Any, headers: RawHeaders) -> bytes | None:
    if etag is True:
        etag = first(headers, b"etag")
    elif etag is None:
        return None
    have_types((etag,), (bytes,))
    return cast("bytes", etag)


def _shared_of(steering: tuple[Any, ...], made: dict[str, Any]) -> SharedResponse:
    withheld, for_all, only_fresh = steering[:3]
    have_types(steering[:3], _STEERING)
    part = steering[3]
    if part is not None:
        begin, end, complete = part
        known = end + 1 if complete is None else complete
        have_types((begin, end, known), (int, int, int))
        if not 0 <= begin <= end < known:
            raise ValueError("a range that is none")
        part = ContentRange(begin, end, complete)
    lines = tuple(_lines_of(withheld))
    # An earlier release did not say: then it may be.
    guessed = _flag(steering[4] if len(steering) > 4 else True)
    # Nor that a rule had a part in it, which may have been in place of what the response itself says.
    ruled = _flag(steering[5] if len(steering) > 5 else not guessed)
    return SharedResponse(
        withheld=lines, for_all=for_all, guessed=guessed, ruled=ruled, only_fresh=only_fresh, part=part, **made
    )


def record_row(record: VaryRecord, now: float) -> tuple[Any, ...]:
    """The row of what selects among variants, without its key; its time relative to `now`."""
    until = float(record.until - now)
    if not isfinite(until):
        raise ValueError("a number out of range")
    sets = tuple(_flat(chosen) for chosen in record.sets)
    _bounded(sets, *sets, record.variants)
    return (sets, record.variants, until)


def record_of(row: tuple[Any, ...], *, key: bytes, base: float) -> VaryRecord:
    """The record of a row whose time is relative to `base`; raises `ValueError` or `TypeError` for none."""
    have_types(row[:3], _RECORD)
    sets, variants, until = row[:3]
    if not isfinite(until):
        raise ValueError("a number out of range")
    have_types(variants, (bytes,) * len(variants))
    return VaryRecord(key, tuple(_selecting(chosen) for chosen in sets), variants, base + until)


def _selecting(flat: tuple[Any, ...]) -> tuple[Selector, ...]:
    have_types(flat, _SELECTOR * (len(flat) // 2))
    return tuple(zip(flat[::2], flat[1::2], strict=True))
