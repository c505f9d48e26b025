"""What a cache downstream of this one may make of an answer: for how long it may keep it, or that it may not."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import path_of, shown_tags
from fastapi_cacheinval.grammar.age import parse_age
from fastapi_cacheinval.grammar.fields import RawHeaders, values

__all__ = [
    "LIFETIMES",
    "TAGS",
    "KeepFor",
    "age_sent",
    "forbidden_by_fields",
    "keep_for",
    "named",
    "path_key",
    "without_downstream",
]

TAGS = frozenset({b"surrogate-key", b"cache-tag", b"edge-cache-tag", b"xkey"})
"""The fields that name a response's tags to CDNs."""

LIFETIMES = frozenset({b"surrogate-control", b"cdn-cache-control", b"cloudflare-cdn-cache-control"})
"""The fields that tell CDNs apart from browsers for how long to keep a response."""

# More digits than any age has: one that is clamped here may be anything elsewhere.
_ODD_DIGITS = 10
_LONGEST_PATH = 1024
_FORBID = (b"no-store", b"private", b"no-cache")


class KeepFor(NamedTuple):
    """For how long a cache downstream may keep a response, in whole seconds.

    `seconds` counts from when the response was made: the `Age` that it carries counts against it (RFC 9111
    section 4.2). The windows after it are those of RFC 5861.
    """

    seconds: int
    stale_while_revalidate: int
    stale_if_error: int


def keep_for(stored: StoredResponse, outcome: Outcome, age: int) -> KeepFor | None:
    """For how long an answer may be kept downstream; None where it may not be.

    `outcome` says how fresh it is, soft purges included, and not that where it was not stored; `age` is the `Age` that
    it is sent with. What is stale here is not fresh anywhere: only what is left of its windows may be used.
    """
    own = stored.downstream_ttl
    if own == 0 or outcome.ttl is None:
        return None
    fresh = outcome.ttl >= 0
    left = int(own) if fresh and own is not None else max(0, outcome.ttl)
    revalidate = error = 0
    if not stored.must_revalidate:
        revalidate = max(0, int(stored.stale_while_revalidate - outcome.overdue))
        error = max(0, int(stored.stale_if_error - outcome.overdue))
    if not left and not revalidate and not error:
        return None
    return KeepFor(left + age if left else 0, revalidate, error)


def path_key(path: str) -> str:
    """The tag that stands for a path in a cache downstream: `path:` and 32 hexadecimal digits.

    It is the same in any process, for the path of a response and for each of `receipt.paths`. A `Downstream` is given
    those of the paths inside of mounts among the tags.

    .. versionadded:: 0.2.0
    """
    raw = path.encode("utf-8", "surrogatepass")
    if len(raw) > _LONGEST_PATH:
        # Receipts name a path that is too long for a tag by this.
        raw = b"sha256:" + hashlib.sha256(raw).hexdigest().encode()
    return "path:" + hashlib.sha256(raw).hexdigest()[:32]


def named(stored: StoredResponse) -> tuple[tuple[str, ...], str]:
    """The tags of a stored response that are anybody's business, and the path that it is of.

    The paths by which mounted apps know it, and purge it, are among the tags, as their purges name them.
    """
    path, *inner = [known for tag in stored.tags if (known := path_of(tag)) is not None] or [""]
    return (*shown_tags(stored.tags), *map(path_key, inner)), path


def forbidden_by_fields(stored: StoredResponse, fields: RawHeaders) -> bool:
    """Whether an answer's own fields keep it from caches downstream.

    Where headers steer the cache, what is stored may be by `CDN-Cache-Control` what it may not be by `Cache-Control`.
    """
    steered = isinstance(stored, SharedResponse)
    for name, value in fields:
        if name == b"set-cookie" or (name in LIFETIMES and _forbids(value)):
            return True
        # Our own word to browsers, that they revalidate, is not meant for what can be purged.
        if name == b"cache-control" and not steered and _forbids(value, _FORBID[:2]):
            return True
    return False


def _forbids(value: bytes, words: tuple[bytes, ...] = _FORBID) -> bool:
    said = value.lower()
    # Too often is safe: no directive that allows anything has one of these in it.
    return any(word in said for word in words)


def without_downstream(fields: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The fields, without what CDNs are given; a lifetime field that forbids stays, since nobody else would say so."""
    return [(name, value) for name, value in fields if name not in TAGS and (name not in LIFETIMES or _forbids(value))]


def age_sent(fields: RawHeaders) -> int | None:
    """The `Age` that an answer carries, 0 without one; None where a cache downstream might read another number.

    The seconds that are told to be kept count from then: an `Age` that is not read alike would make them many more.
    """
    lines = values(fields, b"age")
    if not lines:
        return 0
    return parse_age(lines) if len(lines) == 1 and lines[0].isdigit() and len(lines[0]) < _ODD_DIGITS else None
