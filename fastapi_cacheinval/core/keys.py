"""Cache keys: length-delimited parts, so that no two requests that differ share one.

Policy mode and header mode compose their keys here, from `KeyParts`. Every part is the same on each replica that serves
the same app, except `local`, which marks a key that must not leave its process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi_cacheinval.core.plain_values import exactly
from fastapi_cacheinval.errors import CacheinvalError

__all__ = [
    "KeyFrame",
    "KeyParts",
    "PartitionTypeError",
    "as_bytes",
    "below",
    "cache_key",
    "encode",
    "framed_key",
    "is_local",
    "kept_query",
    "key_frame",
    "partition_digest",
    "raw_target",
    "sent_host",
    "sent_path",
    "typed",
    "variant_key",
]

_DIGEST_BYTES = 32
_LOCAL_MARK = b"!"


class PartitionTypeError(CacheinvalError):
    """A partition's value is of a type that has no stable identity; `value_type` is its name."""

    def __init__(self, value: object) -> None:
        self.value_type = type(value).__qualname__
        super().__init__(
            f"partition_by gave a {self.value_type}; it must give a str, bytes, int, UUID, Enum, None or a "
            "tuple of these. Return the id that tells the callers apart, not the object."
        )


def as_bytes(text: str) -> bytes:
    """A text as a part of a key, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def below(root: str, path: str) -> str:
    """A path without the root path, as routes see it: a slash at the end of the root path is a part of it."""
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def encode(parts: Iterable[bytes]) -> bytes:
    """Parts joined as netstrings: the join of two different sequences is never the same."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _digest(parts: Iterable[bytes]) -> bytes:
    return hashlib.blake2b(encode(parts), digest_size=_DIGEST_BYTES).digest()


def kept_query(query: bytes, names: Collection[str] | None) -> tuple[bytes, ...]:
    """The part of a query string that the route reads: by name, repeated values in order; None keeps it raw."""
    if names is None:
        return (b"raw", query)
    if not query or not names:
        return ()
    # As the framework parses it, so that the key holds exactly what the handler is given.
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    kept = sorted((pair for pair in pairs if pair[0] in names), key=lambda pair: pair[0])
    return tuple(as_bytes(text) for pair in kept for text in pair)


# How a key ends that every replica composes alike.
_EVERYWHERE = encode((b"",))


class KeyParts(NamedTuple):
    """All that tells one stored response from another, as named parts.

    - `mode`: `policy` or `headers`, and the option that has a part in what is stored: whether its tags are told. Two
      modes never share a response.
    - `namespace`, `version`: the cache's settings.
    - `scheme`, `host`: the origin, as the client names it. The host is compared without case (RFC 9110 section 4.2.3),
      but where the app may see how it was spelled.
    - `root_path`: the root path that the server or the framework gives.
    - `path`: the decoded path that the app routes by. In policy mode it is the path below the root path.
    - `sent`: where the app may see it, the root path, the path and the host as they came, the path still encoded.
    - `route`: what the route is on every replica: its place, its template and its handler.
    - `given`: the path parameters that the path does not hold.
    - `query`: what `kept_query` keeps, or the whole query.
    - `terms`: what the policy says of what is stored: how it is tagged, what selects it, for how long, and where.
    - `covered_by`: the names of the dependencies that give the partition, and of the guards.
    - `partition`: the digest of the values that they gave.
    - `local`: what only this process knows of the route; empty where every replica composes the same key.
    """

    mode: str
    namespace: str
    version: str
    scheme: str
    host: bytes
    root_path: str
    path: str
    sent: bytes = b""
    route: tuple[bytes, ...] = ()
    given: tuple[bytes, ...] = ()
    query: tuple[bytes, ...] = ()
    terms: bytes = b""
    covered_by: tuple[bytes, ...] = ()
    partition: bytes = b""
    local: bytes = b""


class KeyFrame(NamedTuple):
    """What the keys of one route's responses have in common that differ in their partition alone."""

    before: bytes
    after: bytes
    mark: bytes


def cache_key(parts: KeyParts) -> bytes:
    """The key of a resource: a 256-bit digest of its parts, and one byte more where the key is `local`."""
    return framed_key(key_frame(parts), parts.partition)


def framed_key(frame: KeyFrame, partition: bytes) -> bytes:
    """The key for a frame and the digest of a partition."""
    encoded = b"%b%d:%b%b" % (frame.before, len(partition), partition, frame.after)
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest() + frame.mark


def key_frame(parts: KeyParts) -> KeyFrame:
    """All of a key's parts but the partition."""
    words = (parts.mode, parts.namespace, parts.version, parts.scheme, parts.root_path)
    place = _place(words, parts.route, parts.terms, parts.covered_by)
    before = encode(
        (
            place,
            parts.host.lower(),
            as_bytes(parts.path),
            parts.sent,
            encode(parts.given) if parts.given else b"",
            encode(parts.query) if parts.query else b"",
        )
    )
    if not parts.local:
        return KeyFrame(before, _EVERYWHERE, b"")
    return KeyFrame(before, encode((parts.local,)), _LOCAL_MARK)


@lru_cache(maxsize=4096)
def _place(words: tuple[str, ...], route: tuple[bytes, ...], terms: bytes, covered_by: tuple[bytes, ...]) -> bytes:
    """What many keys have in common."""
    return _digest((*map(as_bytes, words), encode(route), terms, encode(covered_by)))


def is_local(key: bytes) -> bool:
    """Whether a key means something in this process only, so that other processes must not see what it leads to."""
    return len(key) != _DIGEST_BYTES


def sent_path(raw_path: bytes | None, query: bytes) -> bytes:
    """The path as it was sent, without the query that some servers leave in it; none at all is not an empty one."""
    if raw_path is None:
        return b""
    path, _, rest = raw_path.partition(b"?")
    return b"+" + (path if rest and rest == query else raw_path)


def sent_host(lines: Sequence[bytes], server: Sequence[object] | None = None) -> tuple[bytes, ...]:
    """The `Host` lines as they were sent; nothing for a single one that is spelled as every client spells it.

    Without any, an app takes the `server` that the request came to for the host.
    """
    if not lines and server:
        return (b"server", *(as_bytes(str(part)) for part in server))
    return () if len(lines) == 1 and lines[0] == lines[0].lower() else (b"host", *lines)


def raw_target(scope: Mapping[str, Any], host: bytes | None) -> tuple[object, ...]:
    """What the front lookup finds a stored response by, as the server gave it."""
    return (
        host,
        scope["path"],
        scope.get("query_string", b""),
        scope.get("scheme", "http"),
        scope.get("root_path", ""),
    )


def variant_key(key: bytes, selected: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key of one variant: the resource's, and the names and values that selected it (RFC 9111 section 4.1).

    A variant of a local key is local.
    """
    return _digest((key, *(part for pair in selected for part in pair))) + key[_DIGEST_BYTES:]


def typed(value: object) -> bytes:
    """A value with its type, as bytes: values that differ never give the same.

    Raises `PartitionTypeError` for a value without a stable identity, and for one that cannot be encoded: a subclass of
    `str` may do anything, a tuple may be too deep, a number too long. A subclass counts with its name, if what it
    inherits is all that tells two of its values apart.
    """
    try:
        return _typed(value)
    except PartitionTypeError:
        raise
    except Exception as error:
        # No value makes a request fail.
        raise PartitionTypeError(value) from error


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
        return b"E" + encode((_name_of(kind), as_bytes(name or ""), inner))
    plain = exactly(value)
    if plain is not value:
        # The handler may ask a value for its class.
        return b"C" + encode((_name_of(type(value)), _typed(plain)))
    # bool before int: True and 1 are two partitions.
    match value:
        case None:
            return b"N"
        case bool():
            return b"B1" if value else b"B0"
        case int():
            return b"I%d" % value
        case str():
            return b"S" + as_bytes(value)
        case bytes():
            return b"Y" + value
        case UUID():
            return b"U" + value.bytes
        case tuple():
            return b"T" + encode(_typed(item) for item in cast("tuple[object, ...]", value))
        case _:
            raise PartitionTypeError(value)


def _name_of(kind: type) -> bytes:
    """A class by its module and its name in it."""
    return as_bytes(f"{kind.__module__}.{kind.__qualname__}")


def partition_digest(values: Sequence[object], secret: bytes) -> bytes:
    """A keyed digest of the partition's values, each tagged with its type; empty where there is no partition.

    Raises `PartitionTypeError` for a value without a stable identity.
    """
    if not values:
        return b""
    encoded = encode([typed(value) for value in values])
    return hashlib.blake2b(encoded, digest_size=32, key=_derived(secret)).digest()


@lru_cache(maxsize=16)
def _derived(secret: bytes) -> bytes:
    """A key of the length that the digest takes."""
    return hashlib.sha256(secret).digest()
