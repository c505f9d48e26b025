"""Selecting a stored response among the variants of one cache key (RFC 9111 section 4.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from fastapi_cacheinval.core.keys import variant_key
from fastapi_cacheinval.grammar.accept_encoding import normalise_accept_encoding
from fastapi_cacheinval.grammar.fields import RawHeaders, combined, values
from fastapi_cacheinval.grammar.listed import normalise_list

__all__ = ["Selector", "VaryRecord", "select", "selectors"]

# A field name and whether it is compared raw. With policies only `Accept-Encoding` is not, unless a handler reads it.
Selector = tuple[bytes, bool]

_LONGEST_VALUE = 256


def selectors(declared: Iterable[bytes], vary: Iterable[bytes]) -> tuple[Selector, ...]:
    """The request fields that select a variant: the handler's own, compared raw, and those of `Vary`."""
    raw = frozenset(declared)
    return tuple((name, name in raw or name != b"accept-encoding") for name in sorted(raw.union(vary)))


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


class VaryRecord:
    """What is kept under a cache key whose responses vary: which fields select, and the variants' own keys.

    `sets` are the distinct selecting sets, newest first; `variants` their keys, oldest first; `until`
    is when the last of them is past all use.
    """

    __slots__ = ("key", "sets", "until", "variants")

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

    def __repr__(self) -> str:
        return f"<VaryRecord {len(self.variants)} variants>"

    def keys_for(self, headers: RawHeaders) -> Iterable[bytes]:
        """The keys under which a request's variant may be stored, newest selecting set first."""
        for chosen in self.sets:
            yield variant_key(self.key, select(headers, chosen))

    def with_variant(
        self, chosen: tuple[Selector, ...], key: bytes, until: float, most: int
    ) -> tuple[VaryRecord, tuple[bytes, ...]]:
        """The record with one more variant, and the keys that no longer fit among `most`."""
        sets = (chosen, *(kept for kept in self.sets if kept != chosen))[:4]
        variants = (*(kept for kept in self.variants if kept != key), key)
        dropped = variants[: max(0, len(variants) - most)]
        record = VaryRecord(self.key, sets, variants[len(dropped) :], max(self.until, until))
        return record, dropped

    def joined(self, other: VaryRecord, most: int) -> VaryRecord:
        """The record with what another replica knows of the same key, at most `most` variants of it."""
        sets = tuple(dict.fromkeys((*self.sets, *other.sets)))[:4]
        variants = tuple(dict.fromkeys((*other.variants, *self.variants)))[-most:]
        return VaryRecord(self.key, sets, variants, max(self.until, other.until))

    @property
    def weight(self) -> int:
        """Bytes that keeping it takes."""
        selecting = sum(120 + sum(90 + len(name) for name, _ in chosen) for chosen in self.sets)
        return 400 + selecting + 73 * len(self.variants)
