"""The engine: L1, the replica's state and the log, joined."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf

from fastapi_cacheinval.core.decide import MISSED, Decision, Serve, decide, usable_on_error, whole_seconds
from fastapi_cacheinval.core.hit_fields import joined_of
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.route_counts import RouteBook
from fastapi_cacheinval.core.selecting import Selector, VaryRecord
from fastapi_cacheinval.core.stored import Stamp, StoredResponse, weigh
from fastapi_cacheinval.engine.apps import Apps
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.grammar.fields import RawHeaders
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.store import LocalStore

__all__ = ["Engine", "Kept"]

Kept = StoredResponse | VaryRecord

_LEAST_LIFE = 60.0
# A response that was not asked for since it went stale is let go of this long after its last use, at the latest.
_GRACE = 1.0


class Engine:
    """What every lookup and every fill goes through; it holds nothing that belongs to an event loop."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: LocalStore[Kept],
        replica: Replica,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.now = clock.now
        self.store = store
        self.replica = replica
        self.draw = draw
        self.apps = Apps()
        # What is kept counts to its route; a cache has its counters' own here.
        self.routes = RouteBook()
        # Whether a server answers front hits itself, and has their fields joined beforehand.
        self.joins = False
        # Whether a part of a response was ever kept: only then does a newer answer look for one.
        self.has_parts = False
        # What was purged longer ago than anything stored lives may be forgotten by the log.
        self.longest_life = _LEAST_LIFE

    def lives(self, seconds: float) -> None:
        """Something that others may take is stored for so many seconds."""
        self.longest_life = max(self.longest_life, seconds)

    def find(self, key: bytes, headers: RawHeaders) -> tuple[StoredResponse | None, bytes]:
        """The stored response that a request selects, and the key under which its forward collapses."""
        return self.choose(self.store.get(key), key, headers)

    def choose(self, kept: Kept | None, key: bytes, headers: RawHeaders) -> tuple[StoredResponse | None, bytes]:
        """The variant of what is kept under a key that a request selects, and its own key."""
        if not isinstance(kept, VaryRecord):
            return kept, key
        newest: bytes | None = None
        for variant in kept.keys_for(headers):
            newest = newest or variant
            stored = self.store.get(variant)
            if isinstance(stored, StoredResponse):
                kept.used(variant)
                return stored, variant
        return None, newest or key

    def peek(self, key: bytes, headers: RawHeaders) -> tuple[StoredResponse | None, bytes]:
        """What `find` would give, without counting as a use."""
        kept = self.store.peek(key)
        if not isinstance(kept, VaryRecord):
            return kept, key
        keys = [*kept.keys_for(headers)]
        for variant in keys:
            stored = self.store.peek(variant)
            if isinstance(stored, StoredResponse):
                return stored, variant
        return None, keys[0] if keys else key

    def stale_from(self, stored: StoredResponse, now: float, entered: float | None = None) -> float | None:
        """The hand-over check: None where the response may not be used, else from when it is stale by soft purges.

        `entered` is when the request came that is to be answered, where that is not now. What it has waited since makes
        nothing older for it: without a lease, a fill is young enough that began less than the bound before it came.
        """
        replica = self.replica
        changes = replica.changes
        live = replica.live(now)
        if live and stored.verified == changes:
            return inf
        stamp = stored.stamp
        if not live and entered is not None:
            stamp = stamp._replace(began=stamp.began + (now - entered))
        stale_from = replica.stale_from(stamp, stored.tags, now)
        if live:
            if stale_from is None:
                # Purged for good: its room is worth more than its place.
                self.store.remove(stored.key)
            elif stale_from == inf:
                stored.verified = changes
        return stale_from

    def overtaken(self, stored: StoredResponse, now: float) -> bool:
        """Whether a purge forbids a response to the very request that it was made for, however long that took."""
        return self.stale_from(stored, now, stored.stamp.began) is None

    def decide(self, stored: StoredResponse | None, now: float, entered: float | None = None) -> Decision:
        """What a lookup that found `stored` does; `entered` as in `stale_from`."""
        if stored is None:
            return MISSED
        return decide(stored, self.stale_from(stored, now, entered), now, self.draw())

    def serves(self, stored: StoredResponse, now: float) -> bool:
        """Whether a stored response answers a request now, fresh."""
        return isinstance(self.decide(stored, now), Serve)

    def remaining(self, stored: StoredResponse, now: float) -> int:
        """The remaining freshness in whole seconds; at most -1 where it is stale, or a soft purge has made it so."""
        return whole_seconds(self._left(stored, now))

    def _left(self, stored: StoredResponse, now: float) -> float:
        untouched = stored.verified == self.replica.changes
        soft = inf if untouched else self.replica.stale_from(stored.stamp, stored.tags, now)
        until = stored.fresh_until if soft is None else min(stored.fresh_until, soft)
        return until - now

    def outcome(
        self,
        stored: StoredResponse,
        result: Result,
        reason: Reason | None,
        now: float,
        fwd_status: int | None = None,
        tier: str = "l1",
    ) -> Outcome:
        """How a request that is answered with a stored response is answered."""
        left = self._left(stored, now)
        return Outcome(
            result,
            tier=tier,
            reason=reason,
            age=now - stored.created,
            ttl=whole_seconds(left),
            fwd_status=fwd_status,
            overdue=max(0.0, -left),
        )

    def fallback(self, stored: StoredResponse | None, now: float) -> StoredResponse | None:
        """The response, where it may stand in for a forward that failed."""
        if stored is None or not usable_on_error(stored, self.stale_from(stored, now), now):
            return None
        return stored

    def offer(self, key: bytes, stored: StoredResponse, chosen: tuple[Selector, ...], now: float) -> bool:
        """Store what a request gave for a key; False where it was purged meanwhile, or is larger than the tier takes.

        One that took long without a lease is stored too: those who wait for it may have it, and each later request asks
        for itself.
        """
        return not self.overtaken(stored, now) and self.keep(key, stored, chosen, now)

    def keep(self, key: bytes, stored: StoredResponse, chosen: tuple[Selector, ...], now: float) -> bool:
        """Store what a fill of a key gave that nothing has overtaken; False where it is larger than the tier takes."""
        if not self._put(stored.key, stored, self._weight(stored), stored.usable_until, now):
            return False
        kept = self.store.get(key)
        if not chosen:
            if isinstance(kept, VaryRecord):
                self._drop(kept.variants)
            return True
        record = kept if isinstance(kept, VaryRecord) else VaryRecord(key)
        record, dropped = record.with_variant(chosen, stored.key, stored.usable_until, self.settings.max_variants)
        self._drop(dropped)
        return self._put(key, record, record.weight, record.until, now)

    def put(self, stored: StoredResponse, now: float) -> None:
        """Keep a response that another replica has filled, by its own key, unless what is kept is newer and of use."""
        kept = self.store.get(stored.key)
        newer = kept if isinstance(kept, StoredResponse) and kept.created > stored.created else None
        if newer is None or self.stale_from(newer, now) is None:
            self._put(stored.key, stored, self._weight(stored), stored.usable_until, now)

    def join(self, key: bytes, record: VaryRecord) -> VaryRecord:
        """Keep what another replica knows of a key's variants, together with what is known here."""
        known = self.store.get(key)
        if isinstance(known, VaryRecord):
            record = known.joined(record, self.settings.max_variants)
        self._put(key, record, record.weight, record.until, self.now())
        return record

    def outdated(
        self, key: bytes, headers: RawHeaders, stamp: Stamp, spares: Callable[[StoredResponse], bool] | None = None
    ) -> list[bytes]:
        """Let go of each response that the request may be given: the app's newer answer shows that it is wrong.

        `stamp` is that of the newer answer, and `spares` tells which responses that does not speak against. Gives the
        keys under which other replicas may have them.
        """
        kept = self.store.peek(key)
        variants = kept.keys_for(headers) if isinstance(kept, VaryRecord) else (key,)
        gone: list[bytes] = []
        for variant in variants:
            stored = self.store.peek(variant)
            if isinstance(stored, StoredResponse):
                if stored.stamp > stamp or (spares is not None and spares(stored)):
                    continue
                self.store.remove(variant)
            gone.append(variant)
        return gone

    def join_fields(self, stored: StoredResponse, now: float) -> tuple[bytes, bytes]:
        """Join the fields of a response that was stored before a server asked for that; its size counts from now on."""
        stored.joined = joined = joined_of(stored)
        if self.store.get(stored.key) is stored:
            self._put(stored.key, stored, weigh(stored), stored.usable_until, now)
        return joined

    def _weight(self, stored: StoredResponse) -> int:
        if self.joins and stored.anonymous:
            stored.joined = joined_of(stored)
        return weigh(stored)

    def _put(self, key: bytes, value: Kept, weight: int, until: float, now: float) -> bool:
        account = None
        if isinstance(value, StoredResponse):
            value.counts = account = self.routes.of(value.route)
        return self.store.put(key, value, weight, until + _GRACE, now, account)

    def _drop(self, keys: tuple[bytes, ...]) -> None:
        for key in keys:
            self.store.remove(key)
