"""Which of a response's fields steer this cache (RFC 9213), and how long it is fresh by them (RFC 9111 section 4.2).

Times are seconds, those of dates since the epoch. Some of these fields the cache keeps to itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from fastapi_cacheinval.core.rfc9111.options import HeaderOptions, HeaderRule
from fastapi_cacheinval.grammar.age import parse_age
from fastapi_cacheinval.grammar.cache_control import CacheControl, parse
from fastapi_cacheinval.grammar.dates import parse_date
from fastapi_cacheinval.grammar.fields import RawHeaders, first, values, without
from fastapi_cacheinval.grammar.targeted import parse_cdn_cache_control, parse_surrogate_control

__all__ = [
    "HEURISTIC_STATUSES",
    "Lifetime",
    "Steering",
    "explicit_lifetime",
    "heuristic_lifetime",
    "initial_age",
    "lifetime",
    "overrides",
    "passed_on",
    "steering",
    "withheld",
]

# RFC 9110 section 15.1.
HEURISTIC_STATUSES = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})


class Lifetime(NamedTuple):
    """The seconds for which a response is fresh; whether it or a rule states them; whether a rule does."""

    seconds: float
    explicit: bool
    ruled: bool = False


def explicit_lifetime(headers: RawHeaders, steered: Steering, received: float) -> float | None:
    """The lifetime that a response states: `s-maxage`, `max-age`, `Expires` less `Date`; None where it states none.

    `received` stands in for a `Date` that is absent or broken. Of several `Expires` lines the earliest
    holds, and one that is no date is in the past (section 5.3).
    """
    directives = steered.directives
    if directives.s_maxage is not None:
        return directives.s_maxage
    if directives.max_age is not None:
        return directives.max_age
    expires = [] if steered.targeted else values(headers, b"expires")
    if not expires:
        return None
    moments = [parse_date(value, received) for value in expires]
    known = [moment for moment in moments if moment is not None]
    if len(known) < len(moments):
        return 0
    return max(0.0, min(known) - date_of(headers, received))


def date_of(headers: RawHeaders, received: float) -> float:
    """When the response was made, by its `Date`; when it was received where that is absent or broken."""
    value = first(headers, b"date")
    parsed = None if value is None else parse_date(value, received)
    return received if parsed is None else parsed


def heuristic_lifetime(
    status: int, headers: RawHeaders, steered: Steering, options: HeaderOptions, received: float
) -> float:
    """A share of the time since `Last-Modified` (section 4.2.2); 0 where it may not be applied.

    It may be to statuses that are cacheable by default, and to others marked `public`.
    """
    modified = first(headers, b"last-modified")
    if modified is None or not (status in HEURISTIC_STATUSES or steered.directives.public):
        return 0
    moment = parse_date(modified, received)
    if moment is None:
        return 0
    since = max(0.0, date_of(headers, received) - moment)
    return min(since * options.heuristic, options.heuristic_bound)


def overrides(rule: HeaderRule | None, status: int) -> bool:
    """Whether an operator's rule holds in place of what a response says; errors keep their own word."""
    if rule is None or not rule.override:
        return False
    return not rule.lifetime or (status in HEURISTIC_STATUSES and status < 400)


def lifetime(
    status: int,
    headers: RawHeaders,
    steered: Steering,
    options: HeaderOptions,
    received: float,
    rule: HeaderRule | None = None,
) -> Lifetime:
    """The freshness lifetime of a response; `rule` is the operator's for its path."""
    if rule is not None and overrides(rule, status):
        return Lifetime(rule.lifetime, explicit=True, ruled=True)
    stated = explicit_lifetime(headers, steered, received)
    if stated is not None:
        return Lifetime(stated, explicit=True)
    if not steered.guessable:
        return Lifetime(0, explicit=False)
    assumed = options.assumed(rule)
    if assumed is not None and status in HEURISTIC_STATUSES and status < 400:
        return Lifetime(assumed, explicit=False, ruled=rule is not None)
    return Lifetime(heuristic_lifetime(status, headers, steered, options, received), explicit=False)


def initial_age(headers: RawHeaders, delay: float, received: float) -> float:
    """The age of a response when it was received (section 4.2.3); an `Age` that is no number is ignored.

    `delay` is the time from the request to the response.
    """
    stated = parse_age(values(headers, b"age"))
    apparent = max(0.0, received - date_of(headers, received))
    # A Date counts whole seconds: a response made half a second ago is not yet one second old.
    if apparent < 1:
        apparent = 0.0
    return max(apparent, stated + max(0.0, delay))


class Steering(NamedTuple):
    """The directives that hold; where they are `targeted`, `Cache-Control` and `Expires` say nothing here.

    `guessable` is False where those two forbid something or state a lifetime all the same, or `Pragma` says `no-cache`:
    no guess goes against them.
    """

    directives: CacheControl
    targeted: bool
    guessable: bool = True


def steering(headers: RawHeaders) -> Steering:
    """The directives of `Surrogate-Control`, else of `CDN-Cache-Control`, else of `Cache-Control`.

    RFC 9213 section 2.2 puts the second before the third. It says nothing of `Surrogate-Control`, which is often only
    about how a page is to be processed. If that field neither states a lifetime nor forbids anything, the cache takes
    from it only that no stale response is to be served.
    """
    surrogate = parse_surrogate_control(values(headers, b"surrogate-control"))
    control = parse(values(headers, b"cache-control"))
    # The RFC has those ignored; a lifetime that no field states is a cache's own guess.
    pragma = [line for name, line in headers if name == b"pragma" and _decides(parse([line]))]
    guessable = not (_decides(control) or pragma or values(headers, b"expires"))
    if surrogate is not None and _decides(surrogate):
        return Steering(surrogate, targeted=True, guessable=guessable)
    lines = values(headers, b"cdn-cache-control")
    cdn = parse_cdn_cache_control(lines)
    # RFC 9213 has a malformed field ignored. Whoever wrote a word there that forbids meant it all the same.
    void = parse(lines) if lines and cdn is None else None
    if void is not None and _forbids(void):
        cdn = void
    directives = control if cdn is None else cdn
    if surrogate is not None and (surrogate.must_revalidate or surrogate.proxy_revalidate):
        directives = replace(directives, proxy_revalidate=True)
    if cdn is not None:
        return Steering(directives, targeted=True, guessable=guessable)
    return Steering(directives, targeted=False, guessable=not (pragma or (void is not None and _decides(void))))


def _decides(directives: CacheControl) -> bool:
    """Whether directives state a lifetime, or forbid to store a response or to reuse it unasked, if only in part."""
    return directives.max_age is not None or directives.s_maxage is not None or _forbids(directives)


def _forbids(directives: CacheControl) -> bool:
    return directives.no_store or bool(directives.private) or bool(directives.no_cache)


def withheld(headers: RawHeaders, hidden: Collection[bytes] = ()) -> tuple[tuple[bytes, bytes], ...]:
    """The targeted fields that end here, and those of the names that are `hidden`.

    `CDN-Cache-Control` is passed on where it forbids something: a CDN in front of this cache would
    else keep by `Cache-Control` what no CDN was to keep.
    """
    names = {b"surrogate-control", *hidden}
    lines = values(headers, b"cdn-cache-control")
    directives = parse_cdn_cache_control(lines) if lines else None
    if directives is None or not (directives.no_store or directives.private or directives.no_cache):
        names.add(b"cdn-cache-control")
    return tuple(line for line in headers if line[0] in names)


def passed_on(headers: RawHeaders, hidden: Collection[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """The lines that clients see, in order, bytes untouched."""
    return without(headers, {name for name, _ in withheld(headers, hidden)})
