"""What is kept of a response, the stamp that says what its fill had read, and the bytes that keeping it takes."""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof
from typing import NamedTuple

from fastapi_cacheinval.core.route_counts import UNCOUNTED, RouteCounts
from fastapi_cacheinval.core.tags import ALL

__all__ = ["Stamp", "StoredResponse", "share", "weigh"]


class Stamp(NamedTuple):
    """What a fill knew when its request entered: everything the hand-over check needs.

    `as_of` is the number of the last log line read, `fence` the local fence counter, `began` the
    cache's own clock in seconds. A stamp is taken before the request's dependencies run.
    """

    generation: int
    as_of: int
    fence: int
    began: float


class StoredResponse:
    """A complete response as it is kept (RFC 9111 section 2); `anonymous` is whether a refresh of it is nobody's.

    Only `verified`, `joined`, `private` and `counts` change after it is made.

    Times are seconds of the cache's own clock. `headers` are sent as they stand, without `Age` and
    `Cache-Status`. `early_refresh_from` is the moment before which no early refresh can be drawn, so one
    comparison answers for the common hit. `verified` is the replica's change counter at the last
    hand-over check: while it stands, no purge can concern this response. `route` is the template of the route that
    answered, None where that is not known; `trace` the W3C `traceparent` of the fill, empty where nobody recorded it.
    `downstream_ttl` is as in the policy: for how long a CDN may keep what it is handed, None while it is fresh.
    `joined` are its fields, and those of its 304, as a server writes them that answers hits itself.
    `counts` are those of its route: whoever keeps it sets them, so that a hit counts without a look-up.
    `private` is whether its fields keep shared caches out as they stand, None until somebody has looked.
    `counts_from_now` says that the lifetime in `Cache-Control` is the policy's, and counts from each answer.
    """

    __slots__ = (
        "anonymous",
        "body",
        "counts",
        "counts_from_now",
        "created",
        "downstream_ttl",
        "early_refresh",
        "early_refresh_from",
        "etag",
        "fill_seconds",
        "fresh_until",
        "headers",
        "joined",
        "key",
        "last_modified",
        "must_revalidate",
        "private",
        "route",
        "stale_if_error",
        "stale_while_revalidate",
        "stamp",
        "status",
        "tags",
        "trace",
        "vary",
        "verified",
    )

    def __init__(
        self,
        *,
        key: bytes,
        status: int,
        headers: tuple[tuple[bytes, bytes], ...],
        body: bytes,
        etag: bytes | None,
        last_modified: float | None,
        tags: tuple[str, ...],
        vary: tuple[tuple[bytes, bytes], ...],
        stamp: Stamp,
        created: float,
        fresh_until: float,
        early_refresh_from: float,
        fill_seconds: float,
        early_refresh: float,
        stale_while_revalidate: float,
        stale_if_error: float,
        must_revalidate: bool,
        anonymous: bool,
        route: str | None = None,
        trace: str = "",
        downstream_ttl: float | None = None,
        counts_from_now: bool = False,
    ) -> None:
        self.key = key
        self.status = status
        self.headers = headers
        self.body = body
        self.etag = etag
        self.last_modified = last_modified
        self.tags = tags
        self.vary = vary
        self.stamp = stamp
        self.created = created
        self.fresh_until = fresh_until
        self.early_refresh_from = early_refresh_from
        self.fill_seconds = fill_seconds
        self.early_refresh = early_refresh
        self.stale_while_revalidate = stale_while_revalidate
        self.stale_if_error = stale_if_error
        self.must_revalidate = must_revalidate
        self.anonymous = anonymous
        self.route = route
        self.trace = trace
        self.downstream_ttl = downstream_ttl
        self.counts_from_now = counts_from_now
        self.verified = -1
        self.joined: tuple[bytes, bytes] | None = None
        self.counts: RouteCounts = UNCOUNTED
        self.private: bool | None = None

    @property
    def usable_until(self) -> float:
        """When it is past all use, stale or not."""
        if self.must_revalidate:
            return self.fresh_until
        return self.fresh_until + max(self.stale_while_revalidate, self.stale_if_error)

    @property
    def aside(self) -> tuple[tuple[bytes, bytes], ...]:
        """Fields that are kept and not sent."""
        return ()

    def __repr__(self) -> str:
        return f"<StoredResponse {self.status} {len(self.body)} B {len(self.tags)} tags>"


# -- what keeping it takes, and what many of them have in common --------------------------------

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
    size = getsizeof(stored) + getsizeof(body) + _lines(stored.headers)
    for lines in (stored.vary, stored.aside):
        if lines:
            size += _lines(lines)
    own_etag = etag is not None
    for _, value in stored.headers:
        if value is etag:
            own_etag = False
    if own_etag:
        size += getsizeof(etag)
    size += getsizeof(tags)
    for tag in tags:
        if tag is not ALL:
            size += getsizeof(tag)
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
