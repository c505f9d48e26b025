"""What may be stored in policy mode (a strict subset of RFC 9111 section 3)."""

from __future__ import annotations

from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.grammar.age import parse_age
from fastapi_cacheinval.grammar.cache_control import MAX_SECONDS, CacheControl, parse
from fastapi_cacheinval.grammar.fields import RawHeaders, first, values
from fastapi_cacheinval.grammar.vary import ANY_FIELD, parse_vary

__all__ = ["age_of", "content_length", "lifetime", "refusal", "response_directives"]


def response_directives(headers: RawHeaders) -> CacheControl:
    """The response's `Cache-Control`."""
    return parse(values(headers, b"cache-control"))


def content_length(headers: RawHeaders) -> int | None:
    """The declared length in bytes; None where there is none or it is not a number."""
    text = first(headers, b"content-length")
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None


def age_of(headers: RawHeaders) -> int:
    """The `Age` that a handler passes on; one that is no number, or none that a response can have, is ignored."""
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
    if (first(headers, b"content-type") or b"").lower().startswith(b"text/event-stream"):
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
