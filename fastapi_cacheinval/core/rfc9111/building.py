"""Making stored responses of received ones."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from fastapi_cacheinval.core.conditional import validators
from fastapi_cacheinval.core.rfc9111.cache_groups import named_tags
from fastapi_cacheinval.core.rfc9111.freshness import (
    Steering,
    initial_age,
    passed_on,
    withheld,
)
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.storing import Judged, Received, guessed, shareable
from fastapi_cacheinval.core.selecting import Selector, for_fill, variant_of
from fastapi_cacheinval.core.stored import share
from fastapi_cacheinval.core.tags import with_reserved
from fastapi_cacheinval.grammar.fields import RawHeaders, end_to_end, values, without
from fastapi_cacheinval.grammar.ranges import ContentRange
from fastapi_cacheinval.grammar.vary import ANY_FIELD, parse_vary

__all__ = ["make"]

_NOT_STORED = frozenset({b"age"})
# Cookies, and free text in which a comma may be no separator, are compared byte for byte.
_COMPARED_RAW = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"user-agent"})
# Next to the media type: by what the libraries of browsers ask for a part of a page, or for another form of it.
_NEGOTIATED = frozenset(
    {
        b"accept",
        b"accept-language",
        b"accept-version",
        b"api-version",
        b"hx-request",
        b"hx-target",
        b"next-router-prefetch",
        b"rsc",
        b"turbo-frame",
        b"x-api-version",
        b"x-inertia",
        b"x-pjax",
        b"x-requested-with",
        b"x-version",
    }
)


def _selectors(headers: RawHeaders, *, by_guess: bool) -> tuple[Selector, ...]:
    """The fields of `Vary`; what is kept `by_guess` alone is also for one language and kind of fragment.

    Apps that negotiate do not always say so, FastAPI's `app.frontend(fallback=...)` among them.
    """
    vary = parse_vary(values(headers, b"vary"))
    if vary is ANY_FIELD:
        return ()
    names = sorted({*vary, *_NEGOTIATED}) if by_guess else vary
    return tuple((name, name in _COMPARED_RAW) for name in names)


def _stored_fields(received: Received, steered: Steering, options: HeaderOptions) -> list[tuple[bytes, bytes]]:
    """The fields that are kept: end to end, without those that `private` or `no-cache` name (section 5.2.2)."""
    directives = steered.directives
    named = [each for each in (directives.private, directives.no_cache) if isinstance(each, frozenset)]
    dropped = _NOT_STORED.union(*named)
    if not options.set_cookie:
        dropped |= {b"set-cookie"}
    return without(passed_on(end_to_end(received.headers), received.hidden), dropped)


def make(
    received: Received, judged: Judged, body: bytes, options: HeaderOptions, part: ContentRange | None = None
) -> tuple[SharedResponse, tuple[Selector, ...]]:
    """The stored response and what selects it."""
    steered, life, _ = judged
    directives = steered.directives
    fields = _stored_fields(received, steered, options)
    now = received.now
    age = initial_age(received.headers, now - received.began, received.wall)
    created = now - age
    fresh_until = created + life.seconds
    if directives.no_cache is True:
        fresh_until = min(fresh_until, now)
    etag, modified = validators(fields, received.wall)
    by_guess = guessed(steered, life)
    chosen = for_fill(_selectors(received.headers, by_guess=by_guess), received.asked.headers)
    key, selected = variant_of(received.key, received.asked.headers, chosen)
    error_seconds: float | None = directives.stale_if_error
    if error_seconds is None:
        error_seconds = 0.0 if directives.s_maxage is not None else options.error_seconds
    stored = SharedResponse(
        key=key,
        status=received.status,
        headers=share(fields),
        body=body,
        etag=etag,
        last_modified=modified,
        tags=tuple(dict.fromkeys(with_reserved(_tags(received), received.path, received.inner))),
        vary=selected,
        stamp=received.stamp,
        created=created,
        fresh_until=fresh_until,
        early_refresh_from=-inf,
        fill_seconds=max(0.0, now - received.began),
        early_refresh=0.0,
        stale_while_revalidate=float(directives.stale_while_revalidate or 0),
        stale_if_error=float(error_seconds),
        must_revalidate=directives.must_revalidate or directives.proxy_revalidate or directives.no_cache is True,
        anonymous=False,
        route=received.route,
        trace=received.trace,
        withheld=withheld(received.headers, received.hidden),
        for_all=shareable(steered),
        guessed=by_guess,
        ruled=life.ruled,
        only_fresh=directives.s_maxage is not None,
        part=part,
    )
    return stored, chosen


def _tags(received: Received) -> Iterable[str]:
    yield from received.added
    yield from named_tags(received.headers, received.origin)
