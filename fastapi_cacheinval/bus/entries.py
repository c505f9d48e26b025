"""Lines of the purge log as bytes: what is published and what the log keeps (format 1).

`1 <term> <term nonce> <seq> <nonce> <microseconds>`, a newline, and the payload: what the publisher packed, which the
server does not look into. A payload of a later format cannot be read, so its line purges everything: that is safe, and
two releases can share one log. A release that does not know of pieces takes each of them for a purge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack

from fastapi_cacheinval.bus.script import PAGE_BYTES
from fastapi_cacheinval.core.log_types import LogEntry, Page, Term
from fastapi_cacheinval.core.tag_limits import MOST_TAG_BYTES, MOST_TAGS
from fastapi_cacheinval.core.tags import ALL, MAX_TAG_BYTES

__all__ = [
    "MOST_LINE_BYTES",
    "LineError",
    "by_name",
    "decode_line",
    "decode_lines",
    "decode_page",
    "encode_payload",
    "encode_tags",
    "lines_of",
]

_FORMAT = 1
_MOST_TRACE_BYTES = 4096
# Characters of host/pid.
_MOST_ORIGIN = 128
# Five numbers of at most twenty digits, and two nonces.
_MOST_HEADER_BYTES = 256

MOST_LINE_BYTES = _MOST_HEADER_BYTES + MOST_TAG_BYTES + 5 * MOST_TAGS + 3 * _MOST_TRACE_BYTES
"""The largest line that is read. Earlier releases wrote all tags of a purge in one, `core.pieces` writes less."""

# The last line of a page may begin just before its end.
_MOST_MISSED_BYTES = PAGE_BYTES + MOST_LINE_BYTES
_SLICE_BYTES = 65_536
# Of what no payload of format 1 holds, but a later one may.
_MOST_OTHERS = 1_024
# Characters of a replica's id.
_MOST_WAITER = 64
# The kind, and a tag with its reserved name in front.
_MOST_MEMBER = 2 + 2 * MAX_TAG_BYTES

Trace = tuple[tuple[str, str], ...]


class LineError(ValueError):
    """Bytes that are no line of a format known here."""


def encode_tags(tags: tuple[str, ...]) -> tuple[bytes, ...]:
    """Tags as the server keeps them; paths may hold what is no valid text."""
    # All at once is several times as fast; a path may hold anything, so that it has to be seen whether that went well.
    together = tuple("\n".join(tags).encode("utf-8", "surrogatepass").split(b"\n"))
    if len(together) == len(tags):
        return together
    return tuple(tag.encode("utf-8", "surrogatepass") for tag in tags)


def encode_payload(
    tags: tuple[str, ...],
    *,
    soft: bool,
    trace: Trace = (),
    prompt: bool = False,
    purges: int = 1,
    waiter: str = "",
    origin: str = "",
) -> bytes:
    """What a publisher says of a line; trace context over 4 KiB is left out."""
    if sum(len(name) + len(value) for name, value in trace) > _MOST_TRACE_BYTES:
        trace = ()
    fields = [_FORMAT, tags, soft, prompt, trace, purges, waiter, origin]
    packed: bytes = msgpack.packb(fields, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def decode_line(message: bytes) -> LogEntry:
    """Raises `LineError` for a header that cannot be read, and for more bytes than a writer makes."""
    if len(message) > MOST_LINE_BYTES:
        raise LineError(f"{len(message)} bytes, where no line has more than {MOST_LINE_BYTES}")
    if message.find(b"\n", 0, _MOST_HEADER_BYTES) < 0:
        raise LineError("no header of format 1")
    header, _, payload = message.partition(b"\n")
    parts = header.split(b" ")
    if len(parts) != 6 or parts[0] != b"1":
        raise LineError("not a line of format 1")
    try:
        number, seq, at = int(parts[1]), int(parts[3]), int(parts[5]) / 1_000_000
        term_nonce, nonce = parts[2].decode("ascii"), parts[4].decode("ascii")
    except (ValueError, OverflowError) as error:
        raise LineError("a header with other fields than format 1 has") from error
    return LogEntry(Term(number, term_nonce), seq, nonce, *_said(payload, at))


async def decode_lines(messages: Sequence[bytes]) -> tuple[LogEntry, ...]:
    """The lines of one reply, in order; raises `LineError` for more than a replica reads at once.

    Other requests have their turn in between.
    """
    if sum(map(len, messages)) > _MOST_MISSED_BYTES:
        raise LineError("more bytes than are read at once")
    lines: list[LogEntry] = []
    size = 0
    for message in messages:
        lines.append(decode_line(message))
        size += len(message)
        if size > _SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return tuple(lines)


def _said(payload: bytes, at: float) -> tuple[tuple[str, ...], bool, float, Trace, bool, int, str, str]:
    try:
        fields: Any = msgpack.unpackb(
            payload,
            raw=False,
            unicode_errors="surrogatepass",
            use_list=False,
            max_array_len=MOST_TAGS + 1,
            max_map_len=_MOST_OTHERS,
            max_ext_len=_MOST_OTHERS,
            max_bin_len=_MOST_OTHERS,
        )
        # A later release of the same format may say more.
        version, tags, soft, prompt, trace = fields[:5]
        if version == _FORMAT and not isinstance(tags, str) and all(isinstance(tag, str) for tag in tags):
            pairs = tuple((str(name), str(value)) for name, value in trace)
            # Earlier releases do not say these.
            purges = int(fields[5]) if len(fields) > 5 else 1
            waiter = _waiter(fields[6]) if len(fields) > 6 else ""
            origin = str(fields[7])[:_MOST_ORIGIN] if len(fields) > 7 else ""
            return tuple(tags), bool(soft), at, pairs, bool(prompt), purges, waiter, origin
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException):
        pass
    return (ALL,), False, at, (), False, 1, "", ""


def _waiter(said: Any) -> str:
    """The replica that waits: a short word, because it becomes part of a key's name; nobody for anything else."""
    return said if isinstance(said, str) and said.isascii() and said.isalnum() and len(said) <= _MOST_WAITER else ""


def decode_page(term: Term, seq: int, up_to: int, limit: int, floor: int, members: list[Any]) -> Page | None:
    """A page of the server's tags, newest first; None where it ends within one line, so that a larger one is needed.

    `members` are tags and scores in turn, or pairs of them, as the server's protocol has it.
    """
    if members and isinstance(members[0], list | tuple):
        members = [part for pair in members for part in pair]
    purged = [
        # A longer member names no tag that anything could carry.
        (bytes(member[1:_MOST_MEMBER]).decode("utf-8", "surrogatepass"), int(float(score)), member[:1] == b"s")
        for member, score in zip(members[::2], members[1::2], strict=True)
        if len(member) < _MOST_MEMBER
    ]
    if 2 * limit > len(members):
        return Page(term, seq, up_to, floor, tuple(purged))
    if not purged:
        return None
    last = purged[-1][1]
    if last == purged[0][1]:
        return None
    return Page(term, seq, up_to, last, tuple(purge for purge in purged if purge[1] > last))


def by_name(fields: Any) -> Mapping[Any, Any]:
    """The fields of a hash, or of an entry of a stream: names and values in turn, or a map of them already."""
    return fields if _is_map(fields) else dict(zip(fields[::2], fields[1::2], strict=False))


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


def lines_of(reply: Any) -> list[LogEntry]:
    """The lines in a range of the log's stream, in the reply's order, without what cannot be read."""
    entries: Iterable[Any] = reply
    found: list[LogEntry] = []
    for _, fields in entries:
        try:
            found.append(decode_line(by_name(fields)[b"m"]))
        except (LineError, KeyError):
            # Of a later release, or of somebody else.
            continue
    return found
