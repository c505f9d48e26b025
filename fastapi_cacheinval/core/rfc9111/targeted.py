"""Which of a response's fields steer this cache, and which of them it keeps to itself (RFC 9213)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from fastapi_cacheinval.grammar.cache_control import CacheControl, parse
from fastapi_cacheinval.grammar.fields import RawHeaders, values, without
from fastapi_cacheinval.grammar.targeted import parse_cdn_cache_control, parse_surrogate_control

__all__ = ["TARGETED", "Steering", "passed_on", "steering", "withheld"]

TARGETED = frozenset({b"surrogate-control", b"cdn-cache-control"})


class Steering(NamedTuple):
    """The directives that hold; where they are `targeted`, `Cache-Control` and `Expires` say nothing here."""

    directives: CacheControl
    targeted: bool


def steering(headers: RawHeaders) -> Steering:
    """What holds: `Surrogate-Control`, else `CDN-Cache-Control`, else `Cache-Control` (RFC 9213 section 2.2)."""
    targeted = parse_surrogate_control(values(headers, b"surrogate-control"))
    if targeted is None:
        targeted = parse_cdn_cache_control(values(headers, b"cdn-cache-control"))
    if targeted is not None:
        return Steering(targeted, targeted=True)
    return Steering(parse(values(headers, b"cache-control")), targeted=False)


def withheld(headers: RawHeaders, hidden: Collection[bytes] = ()) -> tuple[tuple[bytes, bytes], ...]:
    """The targeted fields that end here, and those of the names that are `hidden`.

    `CDN-Cache-Control` is passed on where it forbids something: a CDN in front of this cache would
    else keep by `Cache-Control` what no CDN was to keep.
    """
    names = {b"surrogate-control", *hidden}
    directives = parse_cdn_cache_control(values(headers, b"cdn-cache-control"))
    if directives is None or not (directives.no_store or directives.private or directives.no_cache):
        names.add(b"cdn-cache-control")
    return tuple(line for line in headers if line[0] in names)


def passed_on(headers: RawHeaders, hidden: Collection[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """The lines that clients see, in order, bytes untouched."""
    return without(headers, {name for name, _ in withheld(headers, hidden)})
