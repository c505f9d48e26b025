"""What L2 keeps, as bytes (format 1): a sealed envelope around msgpack and a body.

`id (8) | format (1) | length of the fields (4) | fields | body | seal (16)`. The seal is a BLAKE2b over the cache key
and everything before it, keyed where there is a secret: bytes that were stored under another key, damaged or forged are
found out before anything looks into them. The fields hold the log's time at which they were written: bytes that are set
again later, with a new life, are as old as they are. Without a secret it cannot tell what somebody with access to the
server has written on purpose; what is in it is checked all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Callable
from itertools import chain
from struct import Struct
from typing import Any

import msgpack

from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.stores.bodies import expanded, squeezed
from fastapi_cacheinval.stores.rows import (
    MOST_PARTS,
    common_number,
    have_types,
    pairs_of,
    record_of,
    record_row,
    response_of,
    response_row,
)

__all__ = ["COMPRESS_FROM", "Codec", "Unreadable"]

COMPRESS_FROM = 2048
"""Bytes from which a body is compressed."""

_FORMAT = 1
# From Python 3.12 on a slice is a key like any other, so that a map in a list's place raises `KeyError`.
_MISSHAPEN = (
    ValueError,
    TypeError,
    KeyError,
    ArithmeticError,
    RecursionError,
    zlib.error,
    msgpack.UnpackException,
)
# Seconds by which two replicas may know the server's clock differently: the server's own word is good enough then.
_SLACK = 0.1
_HEAD = Struct(">8sBI")
_LENGTH = Struct(">I")
_SEAL_BYTES = 16
_RECORD, _RESPONSE = 0, 1
_MOST_TRACE_BYTES = 4096
_TRACEPARENT, _TRACEPARENT_LENGTH = "traceparent", 55
_FIELDS = (int, int, int, str, int, tuple, int, int, tuple)

Trace = tuple[tuple[str, str], ...]


class Unreadable(ValueError):
    """Bytes that give no stored response: a miss.

    `reason` is for counting: `version` (written by another release), `mac` or `checksum` (with and without a secret:
    damaged, or stored under another key), `ttl` (no remaining life), `replayed` (set again after its life had
    ended), `size` (a body over the bound), `broken`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Codec:
    """Makes bytes of stored responses and of what selects among variants, and reads what others have made.

    `secret`: replicas that share a server have the same one, or none. `compress_from`: see `COMPRESS_FROM`.
    `most_bytes`: the largest body that is read. May be used from any thread.
    """

    __slots__ = ("_base", "_compress_from", "_mismatch", "_most_bytes")

    def __init__(
        self, secret: bytes | None, *, compress_from: int = COMPRESS_FROM, most_bytes: int = 64 * 1024 * 1024
    ) -> None:
        key = b"" if secret is None else hashlib.sha256(secret).digest()
        self._base = hashlib.blake2b(digest_size=_SEAL_BYTES, key=key, person=b"cacheinval-l2")
        self._mismatch = "checksum" if secret is None else "mac"
        self._compress_from = compress_from
        self._most_bytes = most_bytes

    def encode(
        self,
        value: StoredResponse | VaryRecord,
        *,
        key: bytes,
        id: bytes,  # noqa: A002 - what it is called on the other side
        term: Term,
        life_ms: int,
        now: float,
        trace: Trace = (),
        server_time: float | None = None,
    ) -> bytes:
        """The bytes for a response or a record that is written with a life of `life_ms`.

        `id` are 8 bytes drawn for this write, `now` the clock that the value's times are of, and it is taken as the
        moment of the write; `server_time` is the log's time then, in seconds since the epoch. Trace context over 4 KiB
        is left out. Raises `ValueError` for what no reader would take:
        over 4,096 fields or 8,192 tags, or a time that is not finite.
        """
        if len(id) != 8 or life_ms <= 0:
            raise ValueError("an id has 8 bytes, and a life is positive")
        if sum(len(name) + len(text) for name, text in trace) > _MOST_TRACE_BYTES:
            trace = ()
        if isinstance(value, VaryRecord):
            kind, as_of, row = _RECORD, 0, record_row(value, now)
            coding, size, body = 0, 0, b""
        else:
            kind, as_of, row = _RESPONSE, value.stamp.as_of, response_row(value, now)
            size = len(value.body)
            coding, body = squeezed(value.headers, value.body, self._compress_from)
        texts = tuple(chain.from_iterable(trace))
        written_ms = 0 if server_time is None else max(1, int(server_time * 1000))
        fields = (kind, life_ms, term.number, term.nonce, as_of, texts, coding, size, row, written_ms)
        packed: bytes = msgpack.packb(fields, use_bin_type=True, unicode_errors="surrogatepass")
        head = _HEAD.pack(id, _FORMAT, len(packed))
        seal = self._sealing(key)
        for piece in (head, packed, body):
            seal.update(piece)
        return b"".join((head, packed, body, seal.digest()))

    def decode(
        self,
        data: bytes,
        *,
        key: bytes,
        pttl_ms: int,
        asked: float,
        adopt: Callable[[Term, int], Stamp | None],
        server_time: float | None = None,
    ) -> StoredResponse | VaryRecord | None:
        """What was written under the key; None where `adopt` has no stamp for it. Raises `Unreadable`.

        Its times are of the reader's clock. `pttl_ms` is the server's remaining life of it, from the same round trip;
        `asked` when that was sent, so that no age is understated; `server_time` the log's time then, without which
        nothing is known of when it was written.
        `adopt` is asked about responses only: a record holds no data.
        """
        if pttl_ms < 0:
            raise Unreadable("ttl")
        try:
            return self._read(data, key, pttl_ms, asked, adopt, server_time)
        except Unreadable:
            raise
        except _MISSHAPEN as error:
            raise Unreadable("broken") from error

    def _read(
        self,
        data: bytes,
        key: bytes,
        pttl_ms: int,
        asked: float,
        adopt: Callable[[Term, int], Stamp | None],
        server_time: float | None,
    ) -> StoredResponse | VaryRecord | None:
        view = memoryview(data)
        size = len(view) - _SEAL_BYTES
        if size < _HEAD.size:
            raise Unreadable("broken")
        _, version, length = _HEAD.unpack_from(data)
        if version != _FORMAT:
            raise Unreadable("version")
        seal = self._sealing(key)
        seal.update(view[:size])
        if not hmac.compare_digest(seal.digest(), view[size:]):
            raise Unreadable(self._mismatch)
        end = _HEAD.size + length
        if end > size:
            raise Unreadable("broken")
        kind, life_ms, term, as_of, trace, coding, body_size, row, written_ms = _fields(view[_HEAD.size : end])
        if pttl_ms > life_ms:
            raise Unreadable("ttl")
        base = asked - _age(life_ms, pttl_ms, written_ms, server_time)
        if kind == _RECORD:
            return record_of(row, key=key, base=base)
        if kind != _RESPONSE:
            raise Unreadable("version")
        if body_size > self._most_bytes:
            raise Unreadable("size")
        as_of = common_number(as_of)
        stamp = adopt(term, as_of)
        if stamp is None:
            return None
        body = expanded(view[end:size], coding, body_size)
        if body is None:
            raise Unreadable("version")
        return response_of(row, body, key=key, stamp=stamp, base=base, trace=_traceparent(trace))

    def _sealing(self, key: bytes) -> hashlib.blake2b:
        seal = self._base.copy()
        seal.update(_LENGTH.pack(len(key)))
        seal.update(key)
        return seal


def _age(life_ms: int, pttl_ms: int, written_ms: int, server_time: float | None) -> float:
    """The seconds since the write, by what is left of the life, and not below what the sealed time tells."""
    told = (life_ms - pttl_ms) / 1000
    if server_time is None:
        return told
    sealed = server_time - written_ms / 1000
    if sealed * 1000 > life_ms + _SLACK * 1000:
        raise Unreadable("replayed")
    return sealed if sealed > told + _SLACK else told


def _fields(packed: memoryview) -> tuple[int, int, Term, int, Trace, int, int, Any, int]:
    """The fields that are not of the value itself, each of its type; a later release may have added more."""
    # No maps, no types of its own: a later release has to add what it adds as lists and plain values.
    fields: Any = msgpack.unpackb(
        packed,
        use_list=False,
        unicode_errors="surrogatepass",
        max_array_len=MOST_PARTS,
        max_map_len=0,
        max_ext_len=0,
    )
    have_types(fields[:9], _FIELDS)
    kind, life_ms, number, nonce, as_of, trace, coding, size, row = fields[:9]
    # An earlier release did not say when it wrote.
    written_ms = fields[9] if len(fields) > 9 and type(fields[9]) is int else 0
    if min(kind, life_ms, number, as_of, coding, size, written_ms) < 0:
        raise ValueError("a number out of range")
    return kind, life_ms, Term(number, nonce), as_of, tuple(pairs_of(trace, "")), coding, size, row, written_ms


def _traceparent(trace: Trace) -> str:
    """The W3C `traceparent` among trace context; one of another form than that of version 00 is left out."""
    value = dict(trace).get(_TRACEPARENT, "")
    return value if len(value) == _TRACEPARENT_LENGTH else ""
