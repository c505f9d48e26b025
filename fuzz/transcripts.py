"""What a server answered on one connection, and whether two servers said the same."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from fuzz.stories import Sent, Story

__all__ = ["Reply", "differences", "replies"]

# What the cache adds, or says in its own words; `Vary` names more, never less.
_OURS = frozenset(
    {b"age", b"cache-status", b"etag", b"cache-control", b"surrogate-key", b"vary", b"cacheinval-purge", b"date"}
)
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"content-encoding"})
_PART = re.compile(rb"bytes (\d+)-(\d+)/(\d+)\Z")
# No content of the app begins or goes on like this.
_BEGIN = b"HTTP/1.1 "
_COMPLAINT = b"Invalid HTTP request"


@dataclass(frozen=True, slots=True)
class Reply:
    """One response, its content decoded; `whole` is False where the connection ended within it."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    whole: bool = True

    def field(self, name: bytes) -> bytes | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def compared(self) -> tuple[int, tuple[tuple[bytes, bytes], ...], bytes, bool]:
        """What has to be the same with the cache and without it."""
        kept = sorted(pair for pair in self.fields if pair[0] not in _OURS | _FRAMING)
        return self.status, tuple(kept), self.body, self.whole


def _unchunked(data: bytes) -> tuple[bytes, bytes, bool]:
    """The content, what follows it, and whether it came to its end."""
    body = b""
    while True:
        size, found, rest = data.partition(b"\r\n")
        if not found:
            return body, b"", False
        length = int(size, 16)
        if not length:
            return body, rest.partition(b"\r\n")[2], True
        body += rest[:length]
        if len(rest) < length + 2:
            return body, b"", False
        data = rest[length + 2 :]


def replies(data: bytes) -> list[Reply]:
    """Take a connection's bytes apart."""
    found: list[Reply] = []
    while data:
        head, ended, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ", 2)[1])
        if status < 200:
            data = rest
            continue
        fields = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines))
        named = dict(fields)
        length = named.get(b"content-length")
        if rest.startswith(_BEGIN) or not rest:
            # The answer to HEAD has none of what it announces.
            body, data, whole = b"", rest, bool(ended)
        elif named.get(b"transfer-encoding") == b"chunked":
            body, data, whole = _unchunked(rest)
        elif length is not None:
            body, data, whole = rest[: int(length)], rest[int(length) :], len(rest) >= int(length)
        else:
            # It goes up to the end, or an earlier request is answered behind it.
            body, begin, more = rest.partition(_BEGIN)
            data, whole = begin + more, True
        if named.get(b"content-encoding") == b"gzip" and whole and body:
            body = zlib.decompress(body, 31)
        found.append(Reply(status, fields, body, whole))
    return found


def _explained(sent: Sent, cached: Reply, bare: Reply) -> bool:
    """Whether an answer that differs is the same thing said as HTTP has it."""
    if cached.status == 304 and bare.status == 200:
        return sent.conditional
    if cached.status == 206 and bare.status == 200:
        part = _PART.match(cached.field(b"content-range") or b"")
        if part is None or not sent.ranged:
            return False
        start, stop, size = map(int, part.groups())
        return size == len(bare.body) and cached.body == bare.body[start : stop + 1]
    if cached.status == 416 and bare.status == 200:
        return sent.ranged
    if sent.method == "HEAD" and bare.status == 405:
        # A cached route answers HEAD with the head of its GET.
        return cached.body == b""
    return False


def differences(story: Story, cached: Sequence[Reply], bare: Sequence[Reply]) -> list[str]:
    """What the server with the cache said otherwise, in words.

    Where bytes are malformed the server closes the connection, with earlier answers under way or not: those that both
    gave have to be the same.
    """
    found: list[str] = []
    if story.broken:
        cached, bare = _before_the_end(cached), _before_the_end(bare)
    elif len(cached) != len(bare):
        found.append(f"{len(cached)} answers with the cache, {len(bare)} without it")
    for number, (ours, theirs) in enumerate(zip(cached, bare, strict=False)):
        sent = story.requests[min(number, len(story.requests) - 1)]
        if ours.compared != theirs.compared and not _explained(sent, ours, theirs):
            found.append(f"answer {number} to {sent.method} {sent.target}:\n  with: {ours}\n  bare: {theirs}")
    return found


def _before_the_end(answers: Sequence[Reply]) -> list[Reply]:
    """The answers up to the server's own complaint."""
    return list(takewhile(lambda answer: answer.whole and not answer.body.startswith(_COMPLAINT), answers))
