"""What is known of one request that has not been made: what is stored for it, and what it would get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastapi_cacheinval.core.audit import SharedBy
from fastapi_cacheinval.core.decide import whole_seconds
from fastapi_cacheinval.core.events import PurgeEvent, digest_of
from fastapi_cacheinval.core.outcome import Reason
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import shown_tags

__all__ = ["Explanation", "StoredCopy", "copy_of", "forwarded_because"]

Tier = Literal["l1", "l2"]


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """A stored response of the request, on one tier.

    `since` is when it was stored, in seconds since the epoch, as far as clocks agree; `age` and `ttl` are seconds, and
    `ttl` is what is left of its freshness, negative where it is stale. `usable` is whether it may be handed out, fresh
    or stale; where it is not, a purge has hit it, or it is past all use. `variant` names the header fields that select
    it. `trace` is the `traceparent` of the request that filled it. Its body is not here, but for its size.
    """

    tier: Tier
    key: str
    status: int
    size_bytes: int
    since: float
    age: float
    ttl: int
    usable: bool
    tags: tuple[str, ...]
    variant: tuple[str, ...]
    trace: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a request would get now, and why.

    `path` is percent-encoded, without the values of credentials. `route` is the route's label, None where no route of
    this app answers; `shared_by` and `why` are as in a `RouteAudit`, None and empty for a route without a policy.
    `key_parts` are the parts of the cache key by name, `key` the digest of the key, empty where it is not known.
    `tags` are those of what is stored, or else those that the route declares for the request. `stored` are the copies
    that were found, and `last_purge` is the last purge of any of the tags that this replica remembers.

    `result` is what a request would get now: `hit`, `stale`, `collapsed` (another forward is under way), `miss`,
    `bypass`, or `unknown`. `reason` and `detail` are those of `Cache-Status` (RFC 9211), and `cache_status` is the
    field as far as it can be known before the app answers. `because` says it in a sentence. `lookup` is where it would
    be answered, and `front_off` what keeps the front from it. `unknown` is what cannot be known without the caller.
    """

    method: str
    path: str
    result: str
    because: str
    route: str | None = None
    shared_by: SharedBy | None = None
    why: str = ""
    key_parts: tuple[str, ...] = ()
    key: str = ""
    tags: tuple[str, ...] = ()
    stored: tuple[StoredCopy, ...] = ()
    last_purge: PurgeEvent | None = None
    reason: str | None = None
    detail: str | None = None
    cache_status: str = ""
    lookup: Literal["front", "route"] | None = None
    front_off: str | None = None
    unknown: tuple[str, ...] = ()


def copy_of(stored: StoredResponse, tier: Tier, stale_from: float | None, now: float, wall: float) -> StoredCopy:
    """What is told of a stored response; `stale_from` is the replica's word of it, `wall` the epoch's time at `now`."""
    fresh_until = stored.fresh_until if stale_from is None else min(stored.fresh_until, stale_from)
    return StoredCopy(
        tier=tier,
        key=digest_of(stored.key),
        status=stored.status,
        size_bytes=len(stored.body),
        since=wall - (now - stored.created),
        age=now - stored.created,
        ttl=whole_seconds(fresh_until - now),
        usable=stale_from is not None and now < max(stored.usable_until, fresh_until),
        tags=shown_tags(stored.tags),
        variant=tuple(name.decode("latin-1") for name, _ in stored.vary),
        trace=stored.trace,
    )


_WHY = {
    Reason.URI_MISS: "Nothing is stored for it.",
    Reason.VARY_MISS: "What is stored varies by header fields, and none of it is for this request's.",
    Reason.STALE: "What is stored is stale, and may not be served so.",
}


def forwarded_because(reason: Reason, *, purged: bool) -> str:
    """Why a request would go forward, in a sentence."""
    if purged:
        return "What was stored has been purged."
    return _WHY.get(reason, f"It goes forward: {reason.value}.")
