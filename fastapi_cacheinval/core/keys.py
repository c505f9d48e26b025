"""Cache keys: length-delimited parts, so that no two requests that differ share one."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import cast
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["PartitionTypeError", "cache_key", "encode", "kept_query", "partition_digest", "variant_key"]


class PartitionTypeError(CacheinvalError):
    """A partition's value is of a type that has no stable identity; `value_type` is its name."""

    def __init__(self, value: object) -> None:
        self.value_type = type(value).__qualname__
        super().__init__(
            f"partition_by gave a {self.value_type}; it must give a str, bytes, int, UUID, Enum, None or a "
            "tuple of these. Return the id that tells the callers apart, not the object."
        )


def encode(parts: Iterable[bytes]) -> bytes:
    """Parts joined as netstrings: the join of two different sequences is never the same."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _digest(parts: Iterable[bytes]) -> bytes:
    return hashlib.blake2b(encode(parts), digest_size=32).digest()


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def kept_query(query: bytes, names: Collection[str] | None) -> tuple[bytes, ...]:
    """The part of a query string that the route reads: by name, repeated values in order; None keeps it raw."""
    if names is None:
        return (b"raw", query)
    if not query or not names:
        return ()
    # As the framework parses it, so that the key holds exactly what the handler is given.
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    kept = sorted((pair for pair in pairs if pair[0] in names), key=lambda pair: pair[0])
    return tuple(_text(text) for pair in kept for text in pair)


def cache_key(
    *,
    namespace: str,
    version: str,
    scheme: str,
    host: bytes,
    path: str,
    query: Sequence[bytes],
    partition: bytes,
    epoch: int,
    route: Iterable[bytes] = (),
) -> bytes:
    """The key of a resource: a 256-bit digest of its unambiguous parts.

    `path` is decoded and without the root path. `epoch` keeps what overridden dependencies filled apart, `route`
    what else tells the route from others that may answer the path.
    """
    place = _place(namespace, version, scheme, epoch, tuple(route))
    return _digest((place, host.lower(), _text(path), encode(query) if query else b"", partition))


@lru_cache(maxsize=4096)
def _place(namespace: str, version: str, scheme: str, epoch: int, route: tuple[bytes, ...]) -> bytes:
    """What many keys have in common."""
    return encode((_text(namespace), _text(version), scheme.encode(), b"%d" % epoch, encode(route)))


def variant_key(key: bytes, selected: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key of one variant: the resource's, and the names and values that selected it (RFC 9111 section 4.1)."""
    return _digest((key, *(part for pair in selected for part in pair)))


def _typed(value: object) -> bytes:
    if isinstance(value, Enum):
        kind = type(value)
        # Members that are made on the way may have no name, or all the same one.
        name = cast("str | None", value.name)
        try:
            inner = _typed(value.value)
        except PartitionTypeError:
            if name is None:
                raise
            inner = b""
        return b"E" + encode((_text(f"{kind.__module__}.{kind.__qualname__}"), _text(name or ""), inner))
    # bool before int: True and 1 are two partitions.
    match value:
        case None:
            return b"N"
        case bool():
            return b"B1" if value else b"B0"
        case int():
            return b"I%d" % value
        case str():
            return b"S" + _text(value)
        case bytes():
            return b"Y" + value
        case UUID():
            return b"U" + value.bytes
        case tuple():
            return b"T" + encode(_typed(item) for item in cast("tuple[object, ...]", value))
        case _:
            raise PartitionTypeError(value)


def partition_digest(values: Sequence[object], secret: bytes) -> bytes:
    """A keyed digest of the partition's values, each tagged with its type; empty where there is no partition.

    Raises `PartitionTypeError` for a value without a stable identity.
    """
    if not values:
        return b""
    encoded = encode([_typed(value) for value in values])
    return hashlib.blake2b(encoded, digest_size=32, key=_derived(secret)).digest()


@lru_cache(maxsize=16)
def _derived(secret: bytes) -> bytes:
    """A key of the length that the digest takes."""
    return hashlib.sha256(secret).digest()
