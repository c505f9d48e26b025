"""What may be stored in policy mode (a strict subset of RFC 9111 section 3), and what is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log

from fastapi_cacheinval.core.client_lifetime import counts_from_now
from fastapi_cacheinval.core.conditional import validators
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.core.selecting import Selector, for_fill, selectors, variant_of
from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share
from fastapi_cacheinval.core.tag_limits import surrogate_key, surrogate_tags, too_many_tags
from fastapi_cacheinval.core.tags import with_reserved
from fastapi_cacheinval.grammar.age import parse_age
from fastapi_cacheinval.grammar.cache_control import MAX_SECONDS, CacheControl, parse
from fastapi_cacheinval.grammar.entity_tags import make_etag
from fastapi_cacheinval.grammar.fields import RawHeaders, end_to_end, first, lower_names, values, without
from fastapi_cacheinval.grammar.vary import ANY_FIELD, add_vary, parse_vary

__all__ = [
    "Recipe",
    "age_of",
    "content_length",
    "downstream_fields",
    "early_refresh_from",
    "has_too_many_tags",
    "is_event_stream",
    "jittered",
    "lifetime",
    "refusal",
    "response_directives",
    "stored_response",
    "streamed_fields",
]

# `Age` is ours to say, and what others wrote into `Cache-Status` is history.
_OURS = frozenset({b"age", b"surrogate-key"})
# What a response says that has no `Cache-Control`.
_NOTHING_SAID = CacheControl()
# The largest -ln(u) that a draw u from (0, 1] with 53 random bits can give.
_LARGEST_DRAW = 53 * log(2)


def response_directives(headers: RawHeaders) -> CacheControl:
    """The response's `Cache-Control`."""
    return _NOTHING_SAID if first(headers, b"cache-control") is None else parse(values(headers, b"cache-control"))


def content_length(headers: RawHeaders) -> int | None:
    """The declared length in bytes; None where there is none or it is not a number."""
    text = first(headers, b"content-length")
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None


def is_event_stream(headers: RawHeaders) -> bool:
    """Whether a response never ends by itself, as server-sent events do not."""
    return (first(headers, b"content-type") or b"").lower().startswith(b"text/event-stream")


def is_small(status: int, headers: RawHeaders, most_bytes: int) -> bool:
    """Whether a response says that its body has at most so many bytes, and that it is no event stream."""
    # Servers take names in any case, and so do we.
    headers = lower_names(headers)
    if is_event_stream(headers):
        return False
    length = 0 if status in (204, 205) else content_length(headers)
    return length is not None and length <= most_bytes


def age_of(headers: RawHeaders) -> int:
    """The `Age` that a handler passes on; one that is no number, or none that a response can have, is ignored."""
    if first(headers, b"age") is None:
        return 0
    age = parse_age(values(headers, b"age"))
    return age if age < MAX_SECONDS else 0


def lifetime(status: int, headers: RawHeaders, policy: CachePolicy) -> float:
    """For how many seconds a response is fresh, before jitter: the policy's, or less where it may say so itself."""
    own = policy.lifetimes.get(status, 0.0)
    if not policy.ttl_from_response:
        return own
    directives = response_directives(headers)
    stated = directives.max_age if directives.s_maxage is None else directives.s_maxage
    return own if stated is None else min(own, max(0.0, stated - age_of(headers)))


def jittered(ttl: float, jitter: float, draw: float) -> float:
    """The freshness lifetime: `ttl` times a value from [1 - jitter, 1], so that it is only ever shortened.

    `draw` is uniform in [0, 1).
    """
    return ttl * (1.0 - jitter * draw)


def early_refresh_from(fresh_until: float, fill_seconds: float, beta: float) -> float:
    """The moment before which no draw can make an early refresh due."""
    return fresh_until - fill_seconds * beta * _LARGEST_DRAW


def refusal(status: int, headers: RawHeaders, policy: CachePolicy, *, partitioned: bool, most_bytes: int) -> str | None:
    """Why a response is not stored, as a token for `Cache-Status`; None where it may be."""
    if not policy.lifetimes.get(status, 0) > 0:
        return "status"
    names = {name for name, _ in headers}
    if b"set-cookie" in names:
        return "set-cookie"
    if b"content-range" in names:
        return "content-range"
    if b"vary" in names and parse_vary(values(headers, b"vary")) is ANY_FIELD:
        return "vary"
    if is_event_stream(headers):
        return "event-stream"
    if (content_length(headers) or 0) > most_bytes:
        return "too-large"
    if b"cache-control" in names:
        directives = response_directives(headers)
        if directives.no_store:
            return "no-store"
        if directives.private and not partitioned:
            return "private"
        if not lifetime(status, headers, policy) > 0:
            return "not-fresh"
    return None


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is known of a fill before its response: the request's side of a stored response.

    `key` is the resource's cache key, `declared` the header fields that select a variant whatever
    `Vary` says, `path` the decoded path, `private` whether a partition or a guard stands before it,
    `anonymous` whether it is proved shared, so that a refresh of it is nobody's, `split` whether clients choose by
    their query which keys there are; `route` is the route's template, `trace` the `traceparent` of the fill, and
    `inner` the path as mounted apps know it, where that is another.
    """

    key: bytes
    policy: CachePolicy
    tags: tuple[str, ...]
    declared: tuple[bytes, ...]
    request_headers: RawHeaders
    path: str
    private: bool
    anonymous: bool
    stamp: Stamp
    began: float
    emit_surrogate_key: bool
    split: bool = False
    route: str | None = None
    trace: str = ""
    inner: tuple[str, ...] = ()


def downstream_fields(headers: RawHeaders, policy: CachePolicy, *, private: bool) -> list[tuple[bytes, bytes]]:
    """What downstream caches are told where the handler says nothing: they revalidate, since they cannot be purged."""
    if first(headers, b"cache-control") is not None:
        return []
    if policy.cache_control is not None:
        return [(b"cache-control", policy.cache_control.encode())]
    return [(b"cache-control", b"private, no-cache" if private else b"no-cache")]


def _fields(recipe: Recipe, headers: RawHeaders, tags: Iterable[str], body: bytes | None) -> list[tuple[bytes, bytes]]:
    # What is for this connection alone leaves with the app's own answer, and is not kept.
    fields = [pair for pair in (headers if body is None else end_to_end(headers)) if pair[0] not in _OURS]
    fields += downstream_fields(fields, recipe.policy, private=recipe.private)
    if recipe.declared:
        fields = add_vary(fields, recipe.declared)
    if body is not None:
        if first(fields, b"etag") is None:
            fields.append((b"etag", make_etag(body, fields)))
        if first(fields, b"content-length") is None:
            fields.append((b"content-length", b"%d" % len(body)))
    if recipe.emit_surrogate_key:
        surrogate = surrogate_key(tags)
        if surrogate is not None:
            fields.append((b"surrogate-key", surrogate))
    return fields


def streamed_fields(recipe: Recipe, headers: RawHeaders, added: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """The fields of a first answer whose body is still on its way, so that its length and bytes are not known."""
    return _fields(recipe, headers, _tags(recipe, headers, added), None)


def _tags(recipe: Recipe, headers: RawHeaders, added: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*recipe.tags, *added, *surrogate_tags(headers))))


def has_too_many_tags(recipe: Recipe, headers: RawHeaders, added: tuple[str, ...]) -> bool:
    """Whether a response has more tags than one may have, `added` those that were collected while answering."""
    return too_many_tags((*recipe.tags, *added), headers)


def _downstream_ttl(policy: CachePolicy, status: int) -> float | None:
    own = policy.downstream_seconds
    # An error that was given little time here is not to be given more elsewhere.
    return own if status < 400 or own == 0 else None


def _variant(recipe: Recipe, fields: RawHeaders) -> tuple[bytes, tuple[tuple[bytes, bytes], ...], tuple[Selector, ...]]:
    """The key of the variant that a request has filled, and what selects it."""
    if first(fields, b"vary") is None:
        return recipe.key, (), ()
    vary = parse_vary(values(fields, b"vary"))
    chosen = for_fill(selectors(recipe.declared, () if vary is ANY_FIELD else vary), recipe.request_headers)
    return (*variant_of(recipe.key, recipe.request_headers, chosen), chosen)


def stored_response(
    recipe: Recipe,
    status: int,
    headers: RawHeaders,
    body: bytes,
    added: Iterable[str],
    *,
    now: float,
    wall_now: float,
    draw: float,
) -> tuple[StoredResponse, tuple[Selector, ...]]:
    """The stored response and what selects it.

    `added` are the tags collected while answering, in normal form; `now` is the cache's clock,
    `wall_now` seconds since the epoch, `draw` uniform in [0, 1).
    """
    tags = _tags(recipe, headers, added)
    fields = _fields(recipe, headers, tags, body)
    if status == 204:
        # RFC 9110 section 8.6: it has none.
        fields = without(fields, (b"content-length",))
    policy = recipe.policy
    key, selected, chosen = _variant(recipe, fields)
    etag, modified = validators(fields, wall_now)
    fill_seconds = max(0.0, now - recipe.began)
    fresh_until = now + jittered(lifetime(status, headers, policy), policy.jitter, draw)
    directives = response_directives(headers)
    control = policy.cache_control
    relative = control is not None and first(headers, b"cache-control") is None and counts_from_now(control.encode())
    stored = StoredResponse(
        key=key,
        status=status,
        headers=share(fields),
        body=body,
        etag=etag,
        last_modified=modified,
        tags=with_reserved(tags, recipe.path, recipe.inner),
        vary=selected,
        stamp=recipe.stamp,
        created=now - age_of(headers),
        fresh_until=fresh_until,
        # -inf: each hit has a `Cache-Control` of its own, which the quickest way to answer does not make.
        early_refresh_from=-inf if relative else early_refresh_from(fresh_until, fill_seconds, policy.early_refresh),
        fill_seconds=fill_seconds,
        early_refresh=policy.early_refresh,
        stale_while_revalidate=policy.stale_seconds,
        stale_if_error=policy.error_seconds,
        must_revalidate=directives.must_revalidate or directives.proxy_revalidate,
        anonymous=recipe.anonymous,
        route=recipe.route,
        trace=recipe.trace,
        downstream_ttl=_downstream_ttl(policy, status),
        counts_from_now=relative,
    )
    return stored, chosen
