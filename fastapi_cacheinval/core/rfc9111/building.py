"""Making stored responses: of a received one, and of an old one and the 304 or HEAD that freshens it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from fastapi_cacheinval.core.keys import variant_key
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.cache_groups import named_tags
from fastapi_cacheinval.core.rfc9111.freshness import Lifetime, initial_age, lifetime, overrides
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.storing import refused_because, shareable
from fastapi_cacheinval.core.rfc9111.targeted import Steering, passed_on, steering, withheld
from fastapi_cacheinval.core.selecting import Selector, for_fill, select
from fastapi_cacheinval.core.stored import Stamp, share
from fastapi_cacheinval.core.tag_limits import too_many_tags
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.grammar.cache_control import CacheControl
from fastapi_cacheinval.grammar.dates import format_date, parse_date
from fastapi_cacheinval.grammar.entity_tags import parse_etag
from fastapi_cacheinval.grammar.fields import RawHeaders, end_to_end, first, values, without
from fastapi_cacheinval.grammar.ranges import ContentRange
from fastapi_cacheinval.grammar.vary import ANY_FIELD, parse_vary

__all__ = ["Judged", "Received", "freshened", "judge", "make"]

# RFC 9111 section 3.2: what describes the stored content stays with it.
_NOT_UPDATED = frozenset({b"content-encoding", b"content-length", b"content-md5", b"content-range", b"etag", b"age"})
_NOT_STORED = frozenset({b"age"})
# Cookies, and free text in which a comma may be no separator, are compared byte for byte.
_COMPARED_RAW = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"user-agent"})


@dataclass(frozen=True, slots=True)
class Received:
    """A response as it came, and what was known when it was asked for.

    `path` is decoded; `origin` is scheme and authority; `added` are tags in normal form that were
    collected while it was answered; `hidden` are names of fields that clients do not see; `now` is the
    cache's clock, `wall` seconds since the epoch; `route` and `trace` are as in a `StoredResponse`; `ranged` says
    that the request's `Range` was forwarded.
    """

    asked: Asked
    key: bytes
    path: str
    origin: str
    stamp: Stamp
    began: float
    status: int
    headers: RawHeaders
    added: tuple[str, ...]
    now: float
    wall: float
    hidden: frozenset[bytes] = frozenset()
    route: str | None = None
    trace: str = ""
    ranged: bool = False


class Judged(NamedTuple):
    """What steers a received response, how long it is fresh, and why it is not stored, None where it is."""

    steered: Steering
    life: Lifetime
    refusal: str | None


def judge(received: Received, options: HeaderOptions, most_bytes: int) -> Judged:
    """Decide whether a received response is stored."""
    rule = options.rule_for(received.path)
    steered = steering(received.headers)
    if rule is not None and overrides(rule, received.status):
        # Nothing of what the response says holds.
        steered = Steering(CacheControl(no_store=not rule.lifetime), targeted=True)
    life = lifetime(received.status, received.headers, steered, options, received.wall, rule)
    refusal = refused_because(
        received.asked,
        received.status,
        received.headers,
        steered,
        life,
        options,
        most_bytes=most_bytes,
        ranged=received.ranged,
    )
    if refusal is None and too_many_tags(received.added, received.headers):
        refusal = "too-many-tags"
    return Judged(steered, life, refusal)


def _selectors(headers: RawHeaders) -> tuple[Selector, ...]:
    vary = parse_vary(values(headers, b"vary"))
    return () if vary is ANY_FIELD else tuple((name, name in _COMPARED_RAW) for name in vary)


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
    etag, modified = first(fields, b"etag"), first(fields, b"last-modified")
    chosen = for_fill(_selectors(received.headers), received.asked.headers)
    selected = select(received.asked.headers, chosen)
    error_seconds: float | None = directives.stale_if_error
    if error_seconds is None:
        error_seconds = 0.0 if directives.s_maxage is not None else options.error_seconds
    stored = SharedResponse(
        key=variant_key(received.key, selected) if chosen else received.key,
        status=received.status,
        headers=share(fields),
        body=body,
        etag=etag if etag is not None and parse_etag(etag) is not None else None,
        last_modified=None if modified is None else parse_date(modified, received.wall),
        tags=tuple(dict.fromkeys((*_tags(received), path_tag(received.path), ALL))),
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
        front=False,
        route=received.route,
        trace=received.trace,
        withheld=withheld(received.headers, received.hidden),
        for_all=shareable(steered),
        only_fresh=directives.s_maxage is not None,
        part=part,
    )
    return stored, chosen


def _tags(received: Received) -> Iterable[str]:
    yield from received.added
    yield from named_tags(received.headers, received.origin)


def freshened(old: SharedResponse, update: RawHeaders, wall: float) -> list[tuple[bytes, bytes]]:
    """The fields of a stored response after a 304 or a HEAD (RFC 9111 section 3.2), those withheld included.

    A field of the update replaces all lines of the same name where the first of them stood. An update without a `Date`
    is of the moment when it came (RFC 9110 section 6.6.1), `wall` seconds since the epoch: the stored one would make it
    as old as what it renews.
    """
    fresh = without(end_to_end(update), _NOT_UPDATED)
    if first(update, b"date") is None and first(old.headers, b"date") is not None:
        fresh = [*fresh, (b"date", format_date(wall))]
    renewed = {name for name, _ in fresh}
    fields: list[tuple[bytes, bytes]] = []
    placed: set[bytes] = set()
    for name, value in (*old.headers, *old.withheld):
        if name not in renewed:
            fields.append((name, value))
        elif name not in placed:
            placed.add(name)
            fields += [line for line in fresh if line[0] == name]
    fields += [line for line in fresh if line[0] not in placed]
    age = first(update, b"age")
    return fields if age is None else [*fields, (b"age", age)]
