"""How many tags one response or one purge may have.

Each tag costs about a microsecond of the event loop, several times: normalised, stored, written, applied, checked. So
their number is bounded. A response with more is not stored, and of what one request names more becomes everything. A
purge by hand is made in pieces, so it may have many more; past that it becomes one of everything too, because replicas
would forget most older purges to remember it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastapi_cacheinval.core.tags import ALL, are_normal, normalise_tag, not_a_tag, shown_tags
from fastapi_cacheinval.grammar.fields import RawHeaders, values
from fastapi_cacheinval.grammar.surrogate_key import parse_surrogate_key, serialise_surrogate_key

__all__ = [
    "MOST_PURGE_BYTES",
    "MOST_PURGE_TAGS",
    "MOST_TAGS",
    "MOST_TAG_BYTES",
    "BoundedTags",
    "bounded_tags",
    "cost_of",
    "for_one_purge",
    "size_of",
    "surrogate_key",
    "surrogate_tags",
    "too_many_tags",
    "without_everything",
]

MOST_TAGS = 8_000
"""Tags of one response, and of what one request purges."""

MOST_TAG_BYTES = 524_288
"""Bytes of them all; a character outside ASCII counts eight times, because it has to be encoded."""

MOST_PURGE_TAGS = 100_000
"""Tags of one purge by hand: half of what a replica remembers."""

MOST_PURGE_BYTES = 4_194_304
"""Bytes of them all, counted as above: half of what the log keeps."""

# The fields by which a response names its tags.
_NAMING = frozenset({b"cache-groups", b"cache-tag", b"edge-cache-tag", b"surrogate-key"})


def cost_of(text: str) -> int:
    """What a text takes of `MOST_TAG_BYTES` before it is normalised."""
    return len(text) if text.isascii() else 8 * len(text)


def bounded_tags(texts: Iterable[str]) -> tuple[str, ...]:
    """The normal forms in their first order, without duplicates; the one tag of everything past the limits.

    It stops at the limit, so that its time is bounded whatever it is given. Raises `ConfigurationError` for what is no
    text.
    """
    bounded = BoundedTags(MOST_TAGS, MOST_TAG_BYTES)
    bounded.add(texts)
    return bounded.tags()


class BoundedTags:
    """Tags as they are given, in normal form, first order and without duplicates, up to so many and so many bytes."""

    __slots__ = ("_left", "_most_tags", "_tags")

    def __init__(self, most_tags: int, most_bytes: int) -> None:
        self._most_tags = most_tags
        self._left = most_bytes
        self._tags: dict[str, None] = {}

    def add(self, texts: Iterable[str]) -> bool:
        """Add some; False once they are too many, and nothing more is looked at."""
        if isinstance(texts, tuple) and self._added_at_once(texts):
            return self._fits()
        for text in texts:
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise not_a_tag(text)
            # Nothing costs something too: each is looked at.
            self._left -= cost_of(text) or 1
            if not self._fits():
                return False
            tag = normalise_tag(text)
            if tag is not None:
                self._tags[tag] = None
        return self._fits()

    def _added_at_once(self, texts: tuple[str, ...]) -> bool:
        """Add those that are few enough and in normal form already; False where that is not known of all."""
        if len(texts) > self._most_tags or set(map(type, texts)) - {str}:
            return False
        size = len("".join(texts))
        if size > self._left or not are_normal(texts):
            return False
        self._left -= size
        self._tags.update(dict.fromkeys(texts))
        return True

    def _fits(self) -> bool:
        return self._left >= 0 and len(self._tags) <= self._most_tags

    def tags(self) -> tuple[str, ...]:
        """What was added; the one tag of everything where it was too much."""
        return tuple(self._tags) if self._fits() else (ALL,)


def surrogate_tags(headers: RawHeaders) -> tuple[str, ...]:
    """The tags of a response's `Surrogate-Key` lines, bounded."""
    lines = values(headers, b"surrogate-key")
    if not lines:
        return ()
    if sum(map(len, lines)) > MOST_TAG_BYTES:
        return (ALL,)
    return bounded_tags(parse_surrogate_key(lines))


def surrogate_key(tags: Iterable[str]) -> bytes | None:
    """The `Surrogate-Key` by which a response names its tags, without reserved ones; None where none is left."""
    return serialise_surrogate_key(shown_tags(tags))


def without_everything(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags of a stored response without the one of everything."""
    return tuple([tag for tag in tags if tag != ALL])


def for_one_purge(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Tags in normal form as they are, where they are few enough for one purge; else the one of everything."""
    return tags if len(tags) <= MOST_PURGE_TAGS and size_of(tags) <= MOST_PURGE_BYTES else (ALL,)


def size_of(tags: Iterable[str]) -> int:
    """The bytes of tags in normal form; those of paths may hold what is not ASCII."""
    text = "".join(tags)
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def too_many_tags(added: Sequence[str], headers: RawHeaders) -> bool:
    """Whether a response with these collected tags and these fields would have more than one may.

    Counted without parsing: a little too many of them counts as too many.
    """
    if ALL in added:
        # Where they were collected they were too many.
        return True
    lines = [value for name, value in headers if name in _NAMING]
    if not lines:
        return len(added) > MOST_TAGS
    # What is not ASCII is read in two ways, and each costs more.
    size = sum(len(value) if value.isascii() else 16 * len(value) for value in lines)
    count = sum((len(value.split()) + value.count(b",")) * (1 if value.isascii() else 2) for value in lines)
    return size > MOST_TAG_BYTES or len(added) + count > MOST_TAGS
