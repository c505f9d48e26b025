"""How many tags one response or one purge may have.

Each tag costs about a microsecond of the event loop, several times: normalised, stored, written, applied, checked. So
their number is bounded. A response with more is not stored, and a purge of more becomes one of everything: a purge of
so many tags takes longer than the forwards that it saves, and replicas would forget older purges to remember it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastapi_cacheinval.core.tags import ALL, normalise_tag, not_a_tag
from fastapi_cacheinval.grammar.fields import RawHeaders, values
from fastapi_cacheinval.grammar.surrogate_key import parse_surrogate_key

__all__ = [
    "MOST_TAGS",
    "MOST_TAG_BYTES",
    "bounded_tags",
    "cost_of",
    "fits",
    "size_of",
    "surrogate_tags",
    "too_many_tags",
]

MOST_TAGS = 8_000
"""Tags of one response, and of one purge."""

MOST_TAG_BYTES = 524_288
"""Bytes of them all; a character outside ASCII counts eight times, because it has to be encoded."""

# The fields by which a response names its tags.
_NAMING = frozenset({b"cache-groups", b"cache-tag", b"edge-cache-tag", b"surrogate-key"})


def cost_of(text: str) -> int:
    """What a text takes of `MOST_TAG_BYTES` before it is normalised."""
    return len(text) if text.isascii() else 8 * len(text)


def bounded_tags(texts: Iterable[str]) -> tuple[str, ...]:
    """The normal forms as `normalise_tags` gives them; the one tag of everything for more than the limits allow.

    It stops at the limit, so that its time is bounded whatever it is given. Raises `ConfigurationError` for what is no
    text.
    """
    tags: dict[str, None] = {}
    left = MOST_TAG_BYTES
    for text in texts:
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise not_a_tag(text)
        # Nothing costs something too: each is looked at.
        left -= cost_of(text) or 1
        if left < 0 or len(tags) > MOST_TAGS:
            return (ALL,)
        tag = normalise_tag(text)
        if tag is not None:
            tags[tag] = None
    return tuple(tags) if len(tags) <= MOST_TAGS else (ALL,)


def surrogate_tags(headers: RawHeaders) -> tuple[str, ...]:
    """The tags of a response's `Surrogate-Key` lines, bounded."""
    lines = list(values(headers, b"surrogate-key"))
    if sum(map(len, lines)) > MOST_TAG_BYTES:
        return (ALL,)
    return bounded_tags(parse_surrogate_key(lines))


def fits(tags: Sequence[str]) -> bool:
    """Whether tags in normal form are few enough for one line of the log."""
    return len(tags) <= MOST_TAGS and size_of(tags) <= MOST_TAG_BYTES


def size_of(tags: Iterable[str]) -> int:
    """The bytes of tags in normal form; those of paths may hold what is not ASCII."""
    return sum(len(tag) if tag.isascii() else len(tag.encode("utf-8", "surrogatepass")) for tag in tags)


def too_many_tags(added: Sequence[str], headers: RawHeaders) -> bool:
    """Whether a response with these collected tags and these fields would have more than one may.

    Counted by separators, without parsing: a little too many of them counts as too many.
    """
    if ALL in added:
        # Where they were collected they were too many.
        return True
    lines = [value for name, value in headers if name in _NAMING]
    size, count = sum(map(len, lines)), sum(1 + value.count(b" ") + value.count(b",") for value in lines)
    return size > MOST_TAG_BYTES or len(added) + count > MOST_TAGS
