"""Entity tags, If-None-Match and their comparison (RFC 9110 §8.8.3 and §13.1.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple

from fastapi_cacheinval.grammar.fields import OWS, RawHeaders

__all__ = [
    "ANY",
    "MAX_MEMBERS",
    "AnyTag",
    "EntityTag",
    "make_etag",
    "none_match_fails",
    "parse_etag",
    "parse_if_none_match",
    "read_as",
    "serialise_etag",
    "strong_match",
    "weak_match",
]

MAX_MEMBERS: Final = 1_000
"""Members of one `If-None-Match` that are looked at; the rest count as absent."""

# An entity tag has no escapes: a backslash is a character like any other.
_ENTITY_TAG: Final = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_SEPARATORS: Final = re.compile(rb"[ \t,]*")
_READ_AS: Final = frozenset({b"content-type", b"content-language"})
_MEMBER_END: Final = re.compile(rb"[ \t]*(?:,|\Z)")


class AnyTag(Enum):
    """The `*` of `If-None-Match`: whatever representation there is."""

    ANY = "*"


ANY: Final = AnyTag.ANY


class EntityTag(NamedTuple):
    """One entity tag: what stands between its quotes, and whether it is weak."""

    opaque: bytes
    weak: bool


def parse_etag(value: bytes) -> EntityTag | None:
    """The entity tag that is the whole value but for white space around it, else None."""
    match = _ENTITY_TAG.fullmatch(value.strip(OWS))
    return None if match is None else EntityTag(match[2], match[1] is not None)


def serialise_etag(tag: EntityTag) -> bytes:
    """The field value of an entity tag."""
    return b'W/"%b"' % tag.opaque if tag.weak else b'"%b"' % tag.opaque


def parse_if_none_match(values: Sequence[bytes]) -> tuple[EntityTag, ...] | AnyTag:
    """The entity tags of all lines of the field, or `ANY` when its only member is `*`.

    Never raises: a malformed member is skipped, so is a `*` among others, and after 1,000 members,
    malformed ones included, it stops.
    """
    if len(values) == 1 and values[0].strip(OWS) == b"*":
        return ANY
    tags: list[EntityTag] = []
    left = MAX_MEMBERS
    for value in values:
        for tag in _members(value):
            if left == 0:
                return tuple(tags)
            left -= 1
            if tag is not None:
                tags.append(tag)
    return tuple(tags)


def weak_match(a: EntityTag, b: EntityTag) -> bool:
    """Whether two tags match when weakness does not count (RFC 9110 §8.8.3.2)."""
    return a.opaque == b.opaque


def strong_match(a: EntityTag, b: EntityTag) -> bool:
    """Whether two tags match and neither is weak (RFC 9110 §8.8.3.2)."""
    return not a.weak and not b.weak and a.opaque == b.opaque


def read_as(fields: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The fields that tell how to read the bytes of a body."""
    return [pair for pair in fields if pair[0] in _READ_AS]


def make_etag(body: bytes, fields: RawHeaders = ()) -> bytes:
    """A strong entity tag made from the bytes of a body and how its `fields` tell to read them.

    It is the same in every process. A 304 leaves out the media type and the language, so a client that has the same
    bytes as something else has to be sent them again (RFC 9110 section 8.8.1).
    """
    made = blake2b(body, digest_size=16)
    for pair in read_as(fields):
        made.update(b"\0%b\0%b" % pair)
    return b'"%b"' % made.hexdigest().encode("ascii")


def none_match_fails(etag: bytes | None, values: Sequence[bytes]) -> bool:
    """Whether `If-None-Match` is false for a response with this `ETag`: answer a GET with 304.

    Compared weakly (RFC 9110 §13.1.2). `*` is false for every response. Without a well-formed
    `ETag`, and without the field, there is nothing that the client could have named.
    """
    if not values:
        return False
    if etag is not None and len(values) == 1 and values[0] == etag and _ENTITY_TAG.fullmatch(etag):
        # A browser sends back what it was given.
        return True
    wanted = parse_if_none_match(values)
    if wanted is ANY:
        return True
    own = None if etag is None else parse_etag(etag)
    return own is not None and any(weak_match(own, tag) for tag in wanted)


def _members(value: bytes) -> Iterator[EntityTag | None]:
    # Linear: each quote opens at most one scan, and that ends at the next quote.
    position = _skip_separators(value, 0)
    while position < len(value):
        match = _ENTITY_TAG.match(value, position)
        end = match and _MEMBER_END.match(value, match.end())
        if match and end:
            yield EntityTag(match[2], match[1] is not None)
            position = end.end()
        else:
            yield None
            comma = value.find(b",", position)
            position = len(value) if comma < 0 else comma
        position = _skip_separators(value, position)


def _skip_separators(value: bytes, position: int) -> int:
    match = _SEPARATORS.match(value, position)
    return position if match is None else match.end()
