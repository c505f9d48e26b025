"""A GET or HEAD as this cache sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.credential_names import is_callers_header
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.token import TOKEN_FIELD
from fastapi_cacheinval.grammar.cache_control import CacheControl, parse
from fastapi_cacheinval.grammar.fields import RawHeaders, split_list, values, without
from fastapi_cacheinval.grammar.ranges import Span, parse_range

__all__ = ["Asked", "fields_forwarded", "read_request"]

_OF_A_RANGE = frozenset({b"range", b"if-range"})
_LONGEST_NAME = 64
_ORIGIN_ONLY = frozenset({b"if-match", b"if-unmodified-since"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of the cache (RFC 9111 section 5.2.1).

    `ranges` is None where there is no `Range` that counts: one of a GET, in bytes, well-formed; `for_origin` says that
    the request has a precondition that a cache must not evaluate (section 4.3.2); `with_certificate` that the client
    has shown a certificate of its own, as far as the server tells.
    """

    method: str
    headers: RawHeaders
    directives: CacheControl
    authorized: bool
    with_cookie: bool
    ranges: tuple[Span, ...] | None
    for_origin: bool
    with_certificate: bool

    @property
    def credential(self) -> str | None:
        """What of the request says who asks, as a token for `Cache-Status`: such a caller's page may be its own."""
        if self.authorized:
            return "authorization"
        if self.with_cookie:
            return "cookie"
        named = self.with_certificate or any(_names_caller(name) for name, _ in self.headers)
        return "credential" if named else None


@lru_cache(maxsize=1024)
def _is_known_credential(name: bytes) -> bool:
    return name != TOKEN_FIELD and is_callers_header(name.decode("latin-1"))


def _names_caller(name: bytes) -> bool:
    # No name that clients make up fills the table: a long one is a credential that nobody has looked at.
    return len(name) > _LONGEST_NAME or _is_known_credential(bytes(name))


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


def _has_certificate(extensions: Mapping[str, Any] | None) -> bool:
    tls: Mapping[str, Any] | None = extensions.get("tls") if extensions else None
    # Its chain, its name, and what is wrong with it: an app may tell callers apart by any of them.
    return any(value for name, value in (tls or {}).items() if name.startswith("client_cert"))


def read_request(
    method: str, headers: RawHeaders, options: HeaderOptions, extensions: Mapping[str, Any] | None = None
) -> Asked:
    """Read a request's fields, whose names are in lower case; never raises.

    `extensions` are those of its scope: ASGI's TLS extension tells of the client's certificate.
    """
    names: set[Any] = {name for name, _ in headers}
    return Asked(
        method=method,
        headers=headers,
        directives=_directives(headers, options),
        authorized=b"authorization" in names,
        with_cookie=b"cookie" in names,
        # RFC 9110 section 14.2: of other methods it is to be ignored.
        ranges=parse_range(values(headers, b"range")) if method == "GET" and b"range" in names else None,
        for_origin=not names.isdisjoint(_ORIGIN_ONLY),
        with_certificate=_has_certificate(extensions),
    )


def fields_forwarded(asked: Asked, condition: RawHeaders | None, *, ranged: bool) -> list[tuple[bytes, bytes]]:
    """The fields of a request as the app sees them when its answer may be stored.

    With a `condition` that replaces the client's own, which is about what the client has. Without one they stay, but
    for the client's `Range`: it is forwarded where it counts and the answer is taken for a part (`ranged`). An app that
    saw another one might answer with an error that is that client's alone.
    """
    if condition is not None:
        return [*(line for line in asked.headers if line[0] not in CONDITIONAL_FIELDS), *condition]
    if ranged and asked.ranges is not None:
        return [*asked.headers]
    return without(asked.headers, _OF_A_RANGE)
