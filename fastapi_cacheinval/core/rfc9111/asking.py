"""A GET or HEAD as this cache sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.grammar.cache_control import CacheControl, parse
from fastapi_cacheinval.grammar.fields import RawHeaders, split_list, values
from fastapi_cacheinval.grammar.ranges import Span, parse_range

__all__ = ["Asked", "read_request"]

_ORIGIN_ONLY = frozenset({b"if-match", b"if-unmodified-since"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of the cache (RFC 9111 section 5.2.1).

    `ranges` is None where there is no `Range` that counts; `for_origin` says that the request has a
    precondition that a cache must not evaluate (section 4.3.2).
    """

    method: str
    headers: RawHeaders
    directives: CacheControl
    authorized: bool
    with_cookie: bool
    ranges: tuple[Span, ...] | None
    for_origin: bool


def _directives(headers: RawHeaders, options: HeaderOptions) -> CacheControl:
    lines = values(headers, b"cache-control")
    asked = parse(lines)
    if not options.request_directives:
        return CacheControl(no_store=asked.no_store, only_if_cached=asked.only_if_cached)
    if not lines and any(
        member.lower() == b"no-cache" for line in values(headers, b"pragma") for member in split_list(line)
    ):
        # Section 5.4: only where there is no Cache-Control.
        return CacheControl(no_cache=True)
    return asked


def read_request(method: str, headers: RawHeaders, options: HeaderOptions) -> Asked:
    """Read a request's fields, whose names are in lower case; never raises."""
    names: set[Any] = {name for name, _ in headers}
    return Asked(
        method=method,
        headers=headers,
        directives=_directives(headers, options),
        authorized=b"authorization" in names,
        with_cookie=b"cookie" in names,
        ranges=parse_range(values(headers, b"range")) if b"range" in names else None,
        for_origin=not names.isdisjoint(_ORIGIN_ONLY),
    )
