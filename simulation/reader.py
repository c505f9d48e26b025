"""Reading: requests that are answered from what a process keeps, fills and their waiters, L2, refreshes."""

from __future__ import annotations

from math import inf

from fastapi_cacheinval.core.stored import Stamp
from simulation.plan import KEYS
from simulation.response import Kept, Shared
from simulation.shell import Shell
from simulation.truth import TAGS

__all__ = ["Reader"]

_RING = tuple(range(KEYS)) * 2
_BURST = 6
_STALE_IF_ERROR = 10.0
_MOST_WAITERS = 3


class Flight:
    """A fill under way: when its request entered, and who waits for it."""

    __slots__ = ("began", "key", "stamp", "step", "waiters")

    def __init__(self, key: int, stamp: Stamp, began: float, step: int) -> None:
        self.key = key
        self.stamp = stamp
        self.began = began
        self.step = step
        self.waiters: list[Flight] = []


class Reader(Shell):
    """A process that answers requests."""

    def begin(self) -> None:
        """A new process, which keeps nothing."""
        super().begin()
        self.kept: list[Kept | None] = [None] * KEYS
        self._flights: dict[int, Flight] = {}

    # -- requests ---------------------------------------------------------------------------------

    def requests(self) -> None:
        """Some requests come in at once, for keys next to each other."""
        world = self.world
        world.push(world.now + world.draws.about(1.0 / world.plan.read_rate), self, self.requests)
        self.read(int(world.random() * KEYS), _BURST)

    def read(self, first: int, count: int) -> None:
        """Answer one request for each of some keys, or let it go on."""
        world, replica, kept_here = self.world, self.replica, self.kept
        truth, now = world.truth, world.now
        local, hot, moved = now + self.offset, truth.hot_until, truth.moved
        live, changes = local < replica.lease_until, replica.changes
        reads = hits = 0
        for key in _RING[first : first + count]:
            counts = now < hot[key]
            reads += counts
            kept = kept_here[key]
            if kept is None:
                self._forward(key)
                continue
            if live and kept.verified == changes:
                stale_from = inf
            else:
                checked = self._stale_from(kept, local, live=live)
                if checked is None:
                    self._forward(key)
                    continue
                stale_from = checked
            fresh = local < kept.fresh_until and local < stale_from
            if not fresh:
                if local >= min(kept.fresh_until, stale_from) + world.plan.stale_while_revalidate:
                    self._forward(key)
                    continue
                world.counts["served stale"] += 1
                if key not in self._flights:
                    world.counts["refreshes"] += 1
                    self._forward(key)
            hits += counts
            if kept.began <= moved[key]:
                truth.handed_over(self.memory, kept, now, fresh=fresh, live=live)
                if world.trace is not None:
                    world.tell(self.name, f"serves {kept!r} {'fresh' if fresh else 'stale'}", key)
        world.reads += reads
        world.hits += hits
        world.served += count

    def _stale_from(self, kept: Kept, local: float, *, live: bool) -> float | None:
        """The hand-over check, as the engine makes it."""
        replica = self.replica
        stale_from = replica.stale_from(kept.stamp, kept.tags, local)
        if live:
            if stale_from is None:
                self.kept[kept.key] = None
            elif stale_from == inf:
                kept.verified = replica.changes
        elif stale_from is not None:
            lapsed = local - replica.lease_until
            young = kept.own and lapsed >= replica.stale_when_disconnected
            self.world.counts["served young while disconnected" if young else "served stale while disconnected"] += 1
        return stale_from

    # -- fills ------------------------------------------------------------------------------------

    def _forward(self, key: int) -> None:
        """The request goes on: to wait for a fill that is under way, or to be one."""
        world, flight = self.world, self._flights.get(key)
        if flight is None:
            self._lead(self._entered(key))
        elif self.replica.fenced(TAGS[key]):
            world.counts["fills beside each other"] += 1
            if world.draws.chance(0.2):
                self._lead(self._entered(key))
        elif len(flight.waiters) < _MOST_WAITERS:
            flight.waiters.append(self._entered(key))

    def _entered(self, key: int) -> Flight:
        now = self.world.now
        return Flight(key, self.replica.stamp(now + self.offset), now, self.world.step)

    def _lead(self, flight: Flight) -> None:
        world, key = self.world, flight.key
        self._flights.setdefault(key, flight)
        if self.replica.live(world.now + self.offset) or not world.ablation.l2_under_lease:
            self.request(world.cluster.l2_get, (key,), self._l2_got, self._handle, (flight,), log=False)
        else:
            self._handle(flight)

    def _l2_got(self, shared: Shared | None, sent: float, flight: Flight) -> None:
        world = self.world
        if shared is not None and world.now < shared.ends:
            kept = self._adopted(shared, flight.key)
            if kept is not None:
                world.counts["answered from L2"] += 1
                self._land(flight)
                self.kept[flight.key] = kept
                self._give(kept, [flight, *flight.waiters], trusting=not world.ablation.l2_under_lease)
                return
            world.counts["refused from L2"] += 1
        self._handle(flight)

    def _adopted(self, shared: Shared, key: int) -> Kept | None:
        world, replica, tags = self.world, self.replica, TAGS[key]
        local = world.now + self.offset
        stamp = replica.adopt(shared.term, shared.as_of, local)
        if not world.ablation.l2_under_lease and shared.term == replica.term:
            stamp, local = Stamp(replica.generation, shared.as_of, 0, -inf), min(local, replica.lease_until - 1e-9)
        if stamp is None:
            world.counts["L2 replies without a lease or of another term"] += 1
            return None
        if replica.stale_from(stamp, tags, local) is None:
            return None
        return Kept(
            key,
            tags,
            stamp,
            shared.fresh_until + self.offset,
            began=shared.began,
            step=-1,
            version=shared.version,
            filler=shared.filler,
            own=False,
        )

    def _handle(self, flight: Flight) -> None:
        """The handler runs: it reads the database at some moment, and ends at a later one."""
        world, draws = self.world, self.world.draws
        seconds = draws.between(0.5, 4.0) if draws.chance(0.02) else draws.about(world.plan.fill_seconds)
        world.push(world.now + seconds, self, self._filled, flight, world.now + seconds * world.random())

    def _filled(self, flight: Flight, read_at: float) -> None:
        world, replica, key = self.world, self.replica, flight.key
        self._land(flight)
        if world.draws.chance(0.03):
            self._failed(flight)
            return
        world.counts["fills"] += 1
        now, plan = world.now, world.plan
        local = now + self.offset
        stamp = replica.stamp(local) if world.ablation.stamped_at_end else flight.stamp
        lifetime = plan.ttl * world.draws.between(0.9, 1.0)
        kept = Kept(
            key,
            TAGS[key],
            stamp,
            local + lifetime,
            began=flight.began,
            step=flight.step,
            version=world.truth.version(key, read_at),
            filler=self.uid,
            own=True,
        )
        if replica.stale_from(stamp, kept.tags, local) is None:
            world.counts["fills overtaken"] += 1
        else:
            self.kept[key] = kept
            if stamp.generation == replica.generation:
                ends = now + lifetime + plan.stale_while_revalidate
                shared = Shared(replica.term, stamp.as_of, now + lifetime, ends, kept.began, kept.version, self.uid)
                self.request(world.cluster.l2_set, (key, shared), self._l2_kept, self._l2_not_kept, log=False)
        self._give(kept, flight.waiters)

    def _l2_kept(self, result: None, sent: float) -> None:
        """Nobody waits for it."""

    def _l2_not_kept(self) -> None:
        """Nobody waits for it."""

    def _land(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _failed(self, flight: Flight) -> None:
        """The handler has raised: what is kept may stand in; of those who wait one more leads."""
        world, kept = self.world, self.kept[flight.key]
        world.counts["fills failed"] += 1
        local = world.now + self.offset
        if kept is not None:
            stale_from = self.replica.stale_from(kept.stamp, kept.tags, local)
            if stale_from is not None and local < min(kept.fresh_until, stale_from) + _STALE_IF_ERROR:
                world.counts["served for an error"] += 1
                self._check(kept, fresh=local < min(kept.fresh_until, stale_from))
        if flight.waiters:
            self._lead_next(flight.waiters)

    def _lead_next(self, waiters: list[Flight]) -> None:
        leader, *rest = waiters
        leader.waiters = rest
        self._lead(leader)

    def _give(self, kept: Kept, waiters: list[Flight], *, trusting: bool = False) -> None:
        """Hand a result to those who wait; where it may not be handed over they go on themselves."""
        world, replica = self.world, self.replica
        if not waiters:
            return
        local = world.now + self.offset
        at = min(local, replica.lease_until - 1e-9) if trusting else local
        stale_from = replica.stale_from(kept.stamp, kept.tags, at)
        if stale_from is None and world.ablation.waiters_check:
            world.counts["waiters refused"] += len(waiters)
            self._lead_next(waiters)
            return
        fresh = stale_from is None or local < min(kept.fresh_until, stale_from)
        world.counts["waiters answered"] += len(waiters)
        if world.now < world.truth.hot_until[kept.key]:
            world.hits += len(waiters)
        self._check(kept, fresh=fresh)

    def _check(self, kept: Kept, *, fresh: bool) -> None:
        world = self.world
        live = self.replica.live(world.now + self.offset)
        world.truth.handed_over(self.memory, kept, world.now, fresh=fresh, live=live)
        if world.trace is not None:
            world.tell(self.name, f"hands over {kept!r} {'fresh' if fresh else 'stale'}", kept.key)
