"""The tags that a response names: for CDNs, and as cache groups of its origin (RFC 9875)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from fastapi_cacheinval.core.tag_limits import MOST_TAG_BYTES, MOST_TAGS, bounded_tags, surrogate_tags
from fastapi_cacheinval.core.tags import ALL, authority, bounded
from fastapi_cacheinval.grammar.cache_groups import parse_cache_groups
from fastapi_cacheinval.grammar.fields import RawHeaders, values
from fastapi_cacheinval.grammar.surrogate_key import readings

__all__ = ["invalidated_groups", "named_tags"]

# By commas.
_LISTED = (b"cache-tag", b"edge-cache-tag")


def named_tags(headers: RawHeaders, origin: str) -> Iterator[str]:
    """What a stored response is tagged with by its own fields, in normal form."""
    yield from surrogate_tags(headers)
    for name in _LISTED:
        lines = values(headers, name)
        if lines:
            tags = (tag.strip(b" \t") for value in lines for tag in value.split(b","))
            yield from bounded_tags(text for tag in tags for text in readings(tag))
    lines = values(headers, b"cache-groups")
    if lines:
        yield from _group_tags(lines, origin)


def invalidated_groups(headers: RawHeaders, origin: str) -> tuple[str, ...]:
    """The groups of the origin that a response to an unsafe request invalidates (RFC 9875 section 3)."""
    return _group_tags(values(headers, b"cache-group-invalidation"), origin)


def _group_tags(lines: Sequence[bytes], origin: str) -> tuple[str, ...]:
    """The reserved tags of the groups in these lines, which are of one origin: its scheme and authority.

    The one tag of everything stands for more than the limits of tags allow.
    """
    if sum(map(len, lines)) > MOST_TAG_BYTES:
        return (ALL,)
    groups = parse_cache_groups(lines)
    if len(groups) > MOST_TAGS:
        return (ALL,)
    scheme, _, named = origin.partition("://")
    raw = f"{scheme}://{authority(scheme, named)}".encode("utf-8", "surrogatepass")
    begin = f"{ALL[0]}group:{hashlib.blake2b(raw, digest_size=16).hexdigest()}:"
    return tuple([begin + bounded(group) for group in groups])
