"""What is kept of a response, and the stamp that says what its fill had read."""

from __future__ import annotations

from typing import NamedTuple

from fastapi_cacheinval.core.route_counts import UNCOUNTED, RouteCounts

__all__ = ["Stamp", "StoredResponse"]


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
    """A complete response as it is kept (RFC 9111 section 2).

    Only `verified`, `joined`, `private` and `counts` change after it is made.

    Times are seconds of the cache's own clock. `headers` are sent as they stand, without `Age` and
    `Cache-Status`. `calm_until` is the moment before which no early refresh can be drawn, so one
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
        "front",
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
        front: bool,
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
        self.front = front
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
