"""Selecting a stored response among the variants of one cache key (RFC 9111 section 4.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from fastapi_cacheinval.core.keys import variant_key
from fastapi_cacheinval.grammar.accept_encoding import normalise_accept_encoding
from fastapi_cacheinval.grammar.fields import RawHeaders, combined, values
from fastapi_cacheinval.grammar.listed import normalise_list, usual_list

__all__ = ["Selector", "VaryRecord", "for_fill", "select", "selectors", "variant_of"]

# A field name and whether it is compared raw. With policies only `Accept-Encoding` is not, unless a handler reads it.
Selector = tuple[bytes, bool]

_LONGEST_VALUE = 256
_MOST_SETS = 4
# A variant that was asked for so often since is in use; more says nothing more.
_MOST_USES = 15
# Uses by variant, on average, at which all are halved: what was asked for long ago gives way.
_AGING = 10


def selectors(declared: Iterable[bytes], vary: Iterable[bytes]) -> tuple[Selector, ...]:
    """The request fields that select a variant: the handler's own, compared raw, and those of `Vary`."""
    raw = frozenset(declared)
    return tuple((name, name in raw or name != b"accept-encoding") for name in sorted(raw.union(vary)))


def for_fill(chosen: tuple[Selector, ...], headers: RawHeaders) -> tuple[Selector, ...]:
    """What selects the answer to a request with these `headers`, in lower-case names.

    Other spellings of the same wish find what was filled for the usual one. But an app may not understand an unusual
    one, such as `Accept-Encoding: GZIP` or two lines of a field, and answer as if it was not there: what was filled
    for such a request is for its own spelling alone, byte by byte.
    """
    if all(raw or _usual(name, values(headers, name)) for name, raw in chosen):
        return chosen
    return tuple((name, True) for name, _ in chosen)


def _usual(name: bytes, lines: Sequence[bytes]) -> bool:
    if name == b"accept-encoding" and any(line != line.lower() for line in lines):
        return False
    return usual_list(name, lines)


def _value(headers: RawHeaders, selector: Selector) -> bytes:
    name, raw = selector
    if not raw and name == b"accept-encoding":
        return normalise_accept_encoding(combined(headers, name))
    found = values(headers, name)
    # Compared raw, absent and empty differ, and so do one line and two: a handler can tell them apart.
    text = b"".join(b"=%d:%b" % (len(value), value) for value in found) if raw else normalise_list(name, found)
    if len(text) > _LONGEST_VALUE:
        return b"~" + hashlib.blake2b(text, digest_size=32).digest()
    return text


def select(headers: RawHeaders, chosen: Sequence[Selector]) -> tuple[tuple[bytes, bytes], ...]:
    """The names and values by which a request selects its variant, of bounded size."""
    return tuple((selector[0], _value(headers, selector)) for selector in chosen)


def variant_of(
    key: bytes, headers: RawHeaders, chosen: tuple[Selector, ...]
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """The key of the variant that a request selects, and the names and values by which it does."""
    selected = select(headers, chosen)
    return (variant_key(key, selected) if chosen else key), selected


def _arranged(sets: Iterable[tuple[Selector, ...]]) -> tuple[tuple[Selector, ...], ...]:
    """The distinct sets in their order, but that a set of raw fields follows the one of the usual spelling."""
    ordered: dict[tuple[Selector, ...], None] = {}
    distinct = tuple(dict.fromkeys(sets))
    for chosen in distinct:
        if all(raw for _, raw in chosen):
            names = [name for name, _ in chosen]
            ordered.update((each, None) for each in distinct if [name for name, _ in each] == names and each != chosen)
        ordered[chosen] = None
    return tuple(ordered)[:_MOST_SETS]


class VaryRecord:
    """What is kept under a cache key whose responses vary: which fields select, and the variants' own keys.

    `sets` are the distinct selecting sets, newest first; `variants` their keys, oldest first; `until`
    is when the last of them is past all use. How often a variant was used is known to this process alone.
    """

    __slots__ = ("_uses", "key", "sets", "until", "variants")

    def __init__(
        self,
        key: bytes,
        sets: tuple[tuple[Selector, ...], ...] = (),
        variants: tuple[bytes, ...] = (),
        until: float = 0.0,
    ) -> None:
        self.key = key
        self.sets = sets
        self.variants = variants
        self.until = until
        # One byte for each of the variants.
        self._uses = bytearray(len(variants))

    def __repr__(self) -> str:
        return f"<VaryRecord {len(self.variants)} variants>"

    def keys_for(self, headers: RawHeaders) -> Iterable[bytes]:
        """The keys under which a request's variant may be stored: first those that its own forward would fill."""
        sets = self.sets
        if len(sets) > 1:
            sets = tuple(sorted(sets, key=lambda chosen: for_fill(chosen, headers) is not chosen))
        for chosen in sets:
            yield variant_key(self.key, select(headers, chosen))

    def used(self, key: bytes) -> None:
        """Note that a request was answered with this variant."""
        if key in self.variants:
            place = self.variants.index(key)
            self._uses[place] = min(_MOST_USES, self._uses[place] + 1)

    def with_variant(
        self, chosen: tuple[Selector, ...], key: bytes, until: float, most: int
    ) -> tuple[VaryRecord, tuple[bytes, ...]]:
        """The record with one more variant, and the keys that no longer fit among `most`.

        The least used go first, of those the oldest: values that clients make up come once, and push out each other.
        """
        sets = _arranged((chosen, *self.sets))
        variants = (*(kept for kept in self.variants if kept != key), key)
        dropped = self._least_used(variants[:-1], len(variants) - most)
        return self._successor(sets, variants, dropped, until), dropped

    def joined(self, other: VaryRecord, most: int) -> VaryRecord:
        """The record with what another replica knows of the same key, at most `most` variants of it."""
        sets = _arranged((*self.sets, *other.sets))
        variants = tuple(dict.fromkeys((*other.variants, *self.variants)))
        dropped = self._least_used(variants, len(variants) - most)
        return self._successor(sets, variants, dropped, other.until)

    def _successor(
        self, sets: tuple[tuple[Selector, ...], ...], variants: Sequence[bytes], dropped: Sequence[bytes], until: float
    ) -> VaryRecord:
        kept = tuple(variant for variant in variants if variant not in dropped)
        record = VaryRecord(self.key, sets, kept, max(self.until, until))
        record._inherit(self)
        return record

    def _least_used(self, variants: Sequence[bytes], number: int) -> tuple[bytes, ...]:
        # A stable sort: the oldest of those that are used alike come first.
        uses = dict(zip(self.variants, self._uses, strict=True))
        return tuple(sorted(variants, key=lambda key: uses.get(key, 0))[: max(0, number)])

    def _inherit(self, other: VaryRecord) -> None:
        uses = dict(zip(other.variants, other._uses, strict=True))
        counts = [uses.get(key, 0) for key in self.variants]
        aged = sum(counts) > _AGING * len(counts)
        self._uses = bytearray(count // 2 if aged else count for count in counts)

    @property
    def weight(self) -> int:
        """Bytes that keeping it takes."""
        selecting = sum(120 + sum(90 + len(name) for name, _ in chosen) for chosen in self.sets)
        return 470 + selecting + 74 * len(self.variants)
