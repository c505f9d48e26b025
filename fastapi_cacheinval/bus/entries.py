"""Lines of the purge log as bytes: what is published and what the log keeps (format 1).

`1 <term> <term nonce> <seq> <nonce> <microseconds>`, a newline, and the payload: what the publisher packed, which the
server does not look into. A payload of a later format cannot be read, so its line purges everything: that is safe, and
two releases can share one log.
"""

from __future__ import annotations

from typing import Any

import msgpack

from fastapi_cacheinval.core.replica import LogEntry, Page, Term
from fastapi_cacheinval.core.tags import ALL

__all__ = ["LineError", "decode_line", "decode_page", "encode_payload", "encode_tag"]

_FORMAT = 1
_MOST_TRACE_BYTES = 4096

Trace = tuple[tuple[str, str], ...]


class LineError(ValueError):
    """Bytes that are no line of a format known here."""


def encode_tag(tag: str) -> bytes:
    """A tag as the server keeps it; paths may hold what is no valid text."""
    return tag.encode("utf-8", "surrogatepass")


def encode_payload(tags: tuple[str, ...], *, soft: bool, trace: Trace = (), prompt: bool = False) -> bytes:
    """What a publisher says of a purge; trace context over 4 KiB is left out."""
    if sum(len(name) + len(value) for name, value in trace) > _MOST_TRACE_BYTES:
        trace = ()
    fields = [_FORMAT, tags, soft, prompt, trace]
    packed: bytes = msgpack.packb(fields, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def decode_line(message: bytes) -> LogEntry:
    """Raises `LineError` for a header that cannot be read."""
    header, separator, payload = message.partition(b"\n")
    parts = header.split(b" ")
    if not separator or len(parts) != 6 or parts[0] != b"1":
        raise LineError("not a line of format 1")
    try:
        number, seq, at = int(parts[1]), int(parts[3]), int(parts[5]) / 1_000_000
        term_nonce, nonce = parts[2].decode("ascii"), parts[4].decode("ascii")
    except (ValueError, OverflowError) as error:
        raise LineError("a header with other fields than format 1 has") from error
    return LogEntry(Term(number, term_nonce), seq, nonce, *_said(payload, at))


def _said(payload: bytes, at: float) -> tuple[tuple[str, ...], bool, float, Trace, bool]:
    try:
        fields: Any = msgpack.unpackb(payload, raw=False, unicode_errors="surrogatepass", use_list=False)
        # A later release of the same format may say more.
        version, tags, soft, prompt, trace = fields[:5]
        if version == _FORMAT and not isinstance(tags, str) and all(isinstance(tag, str) for tag in tags):
            pairs = tuple((str(name), str(value)) for name, value in trace)
            return tuple(tags), bool(soft), at, pairs, bool(prompt)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        pass
    return (ALL,), False, at, (), False


def decode_page(term: Term, seq: int, up_to: int, limit: int, floor: int, members: list[Any]) -> Page | None:
    """A page of the server's tags, newest first; None where it ends within one line, so that a larger one is needed.

    `members` are tags and scores in turn, or pairs of them, as the server's protocol has it.
    """
    if members and isinstance(members[0], list | tuple):
        members = [part for pair in members for part in pair]
    purged = [
        (bytes(member[1:]).decode("utf-8", "surrogatepass"), int(float(score)), member[:1] == b"s")
        for member, score in zip(members[::2], members[1::2], strict=True)
    ]
    if len(purged) < limit:
        return Page(term, seq, up_to, floor, tuple(purged))
    last = purged[-1][1]
    if last == purged[0][1]:
        return None
    return Page(term, seq, up_to, last, tuple(purge for purge in purged if purge[1] > last))
