"""What keeping a stored response takes, in bytes, and sharing what many of them have in common."""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof

from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import ALL

__all__ = ["share", "weigh"]

# Field lines that are the same in very many responses, and names whose values differ.
_COMMON_LINES = (
    (b"accept-ranges", b"bytes"),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"private, no-cache"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-type", b"application/json"),
    (b"content-type", b"application/xml"),
    (b"content-type", b"image/jpeg"),
    (b"content-type", b"image/png"),
    (b"content-type", b"text/css; charset=utf-8"),
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/javascript; charset=utf-8"),
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"vary", b"Accept-Encoding"),
    (b"vary", b"accept-encoding"),
)
_COMMON_NAMES = (
    b"content-disposition",
    b"content-language",
    b"content-length",
    b"content-location",
    b"content-security-policy",
    b"date",
    b"etag",
    b"expires",
    b"last-modified",
    b"link",
    b"server",
    b"strict-transport-security",
    b"surrogate-control",
    b"surrogate-key",
    b"x-content-type-options",
    b"x-frame-options",
    b"x-request-id",
)
_LINES = {line: line for line in _COMMON_LINES}
_NAMES = {name: name for name in (*_COMMON_NAMES, *(name for name, _ in _COMMON_LINES))}

_SLOT = 8

# The interpreter asks for one more slot for a tuple of a derived class than it says.
_TUPLE_SUBCLASS = 8


def share(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The same field lines, with one object for each common name and line: `weigh` counts those as nothing."""
    shared: list[tuple[bytes, bytes]] = []
    for line in headers:
        known = _LINES.get(line)
        if known is None:
            name, value = line
            common = _NAMES.get(name)
            known = line if common is None else (common, value)
        shared.append(known)
    return tuple(shared)


def _lines(lines: tuple[tuple[bytes, bytes], ...]) -> int:
    if not lines:
        return 0
    size = getsizeof(lines)
    for line in lines:
        if _LINES.get(line) is not line:
            name, value = line
            # One object serves all values of one byte or none.
            size += getsizeof(line) + (getsizeof(value) if len(value) > 1 else 0)
            if _NAMES.get(name) is not name:
                size += getsizeof(name)
    return size


def weigh(stored: StoredResponse) -> int:
    """The bytes that keeping a response takes, without its cache key, which the store counts.

    Each of its own objects counts once and in full, to the byte that the interpreter asks for. What all
    or most responses share counts as nothing: the reserved tag of everything, what `share` has made
    common, the policy's numbers, the log's, the route's template. A tag that other responses carry too counts for each.
    """
    body, etag, tags, stamp = stored.body, stored.etag, stored.tags, stored.stamp
    size = getsizeof(stored) + getsizeof(body) + _lines(stored.headers) + _lines(stored.vary) + _lines(stored.aside)
    if etag is not None and not any(value is etag for _, value in stored.headers):
        size += getsizeof(etag)
    size += getsizeof(tags) + sum(getsizeof(tag) for tag in tags if tag is not ALL)
    size += getsizeof(stamp) + _TUPLE_SUBCLASS
    if stored.joined is not None:
        size += getsizeof(stored.joined) + sum(map(getsizeof, stored.joined))
    if stored.trace:
        size += getsizeof(stored.trace)
    times = (
        stamp.began,
        stored.created,
        stored.fresh_until,
        stored.early_refresh_from,
        stored.fill_seconds,
        stored.last_modified,
    )
    # By identity: the two ends of a life are one object where there is no early refresh.
    return size + len({id(time) for time in times if time is not None}) * getsizeof(0.0)
