"""The tags that a response names: for CDNs, and as cache groups of its origin (RFC 9875)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fastapi_cacheinval.core.tag_limits import bounded_tags, surrogate_tags
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.grammar.cache_groups import parse_cache_groups
from fastapi_cacheinval.grammar.fields import RawHeaders, values

__all__ = ["group_tag", "invalidated_groups", "named_tags"]

# By commas.
_LISTED = (b"cache-tag", b"edge-cache-tag")


def group_tag(origin: str, group: str) -> str:
    """The reserved tag of one origin's cache group; `origin` is scheme and authority."""
    digest = hashlib.blake2b(origin.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{ALL[0]}group:{digest}:{group}"


def named_tags(headers: RawHeaders, origin: str) -> Iterator[str]:
    """What a stored response is tagged with by its own fields, in normal form."""
    yield from surrogate_tags(headers)
    for name in _LISTED:
        lines = values(headers, name)
        if lines:
            yield from bounded_tags(tag.strip(b" \t").decode("latin-1") for value in lines for tag in value.split(b","))
    for group in parse_cache_groups(values(headers, b"cache-groups")):
        yield group_tag(origin, group)


def invalidated_groups(headers: RawHeaders, origin: str) -> tuple[str, ...]:
    """The groups of the origin that a response to an unsafe request invalidates (RFC 9875 section 3)."""
    groups = parse_cache_groups(values(headers, b"cache-group-invalidation"))
    return tuple(group_tag(origin, group) for group in groups)
