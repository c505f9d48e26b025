"""Whether the client already has what would be sent (RFC 9110 section 13)."""

from __future__ import annotations

import zlib

from fastapi_cacheinval.grammar.dates import parse_date
from fastapi_cacheinval.grammar.entity_tags import make_etag, none_match_fails, parse_etag, weak_match
from fastapi_cacheinval.grammar.fields import RawHeaders, first, values

__all__ = [
    "CONDITIONAL_FIELDS",
    "OF_ONE_REQUEST",
    "about_another",
    "about_the_same",
    "is_gzip_of",
    "not_modified",
    "not_modified_fields",
    "stands_for",
    "validators",
]

CONDITIONAL_FIELDS = frozenset(
    {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range"}
)

OF_ONE_REQUEST = frozenset({304, 412, 416, 417, 428, 429, 431, 511})
"""The statuses that answer one request and say nothing to another.

They are about its condition, `Range` or `Expect` (RFC 9110), or about its sender, and RFC 6585 forbids to store them.
"""

_VALIDATORS = frozenset({b"etag", b"last-modified"})
# What a layer that makes another body has to change in the head, where there is such a field.
_OF_THE_BYTES = frozenset({b"content-length", b"content-type", b"content-encoding", b"content-range"})
# zlib's number for gzip.
_GZIP = 31
# RFC 9110 section 15.4.5: what describes the content stays with the content.
_CONTENT_FIELDS = frozenset(
    {b"content-length", b"content-type", b"content-encoding", b"content-language", b"content-range"}
)


def not_modified(
    request: RawHeaders, status: int, etag: bytes | None, last_modified: float | None, wall_now: float
) -> bool:
    """Whether a 304 answers a conditional GET or HEAD (RFC 9110 section 13.2.2).

    `If-Modified-Since` counts only without `If-None-Match`; `wall_now` is seconds since the epoch.
    """
    if not 200 <= status < 300:
        return False
    tags: list[bytes] = []
    since: bytes | None = None
    # One look at the fields: nearly all requests have neither.
    for name, value in request:
        if name == b"if-none-match":
            tags.append(value)
        elif name == b"if-modified-since" and since is None:
            since = value
    if tags:
        return none_match_fails(etag, tags)
    if since is None or last_modified is None:
        return False
    parsed = parse_date(since, wall_now)
    return parsed is not None and last_modified <= parsed


def validators(fields: RawHeaders, wall_now: float) -> tuple[bytes | None, float | None]:
    """The `ETag` and the `Last-Modified` of a response, in seconds since the epoch; None for what is none."""
    etag, modified = first(fields, b"etag"), first(fields, b"last-modified")
    return (
        etag if etag is not None and parse_etag(etag) is not None else None,
        None if modified is None else parse_date(modified, wall_now),
    )


def stands_for(request: RawHeaders, status: int, fields: RawHeaders, wall_now: float) -> bool:
    """Whether a 304 stands for a response with this status and these fields, as `not_modified` has it."""
    return not_modified(request, status, *validators(fields, wall_now), wall_now)


def not_modified_fields(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The fields of a response that its 304 carries."""
    return [pair for pair in headers if pair[0] not in _CONTENT_FIELDS]


def about_another(
    fields: RawHeaders, spoken: RawHeaders, spoken_body: bytes | None, body: bytes | None
) -> list[tuple[bytes, bytes]]:
    """The fields of an answer whose body is another than the one that was `spoken` of, in what they say of that.

    An `ETag` and a length of the spoken one are made anew of `body`, and left out where that is not known; a
    `Last-Modified` is left out. A client that asks with one of those would be told that it has the spoken one.
    """
    now = {} if body is None else {b"etag": make_etag(body, fields), b"content-length": b"%d" % len(body)}
    about: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if name == b"content-length":
            said = spoken_body is not None and value == b"%d" % len(spoken_body)
        else:
            said = name in _VALIDATORS and any(_same_validator(value, each) for each in values(spoken, name))
        if not said:
            about.append((name, value))
        elif name in now:
            about.append((name, now[name]))
    return about


def about_the_same(fields: RawHeaders, spoken: RawHeaders) -> bool:
    """Whether fields say of a body what those that were `spoken` say of theirs."""
    return [pair for pair in fields if pair[0] in _OF_THE_BYTES] == [
        pair for pair in spoken if pair[0] in _OF_THE_BYTES
    ]


def is_gzip_of(body: bytes, fields: RawHeaders, spoken_body: bytes, spoken: RawHeaders) -> bool:
    """Whether a body is the one that was `spoken` of, coded as its fields say and those of that do not."""
    if values(fields, b"content-encoding") != [b"gzip"] or values(spoken, b"content-encoding"):
        return False
    decoder = zlib.decompressobj(_GZIP)
    try:
        content = decoder.decompress(body, len(spoken_body) + 1)
    except zlib.error:
        return False
    return content == spoken_body and decoder.eof and not decoder.unused_data


def _same_validator(one: bytes, other: bytes) -> bool:
    """Whether a condition with one would be met by the other: also where it was made a weak one."""
    tag, spoken = parse_etag(one), parse_etag(other)
    return one == other if tag is None or spoken is None else weak_match(tag, spoken)
