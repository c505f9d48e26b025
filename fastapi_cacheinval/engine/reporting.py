"""A cache's report of itself, put together from its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.shadowing import ShadowStatistics
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.unchanging import FrozenMapping
from fastapi_cacheinval.engine.engine import Engine
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.engine.sources import Sources
from fastapi_cacheinval.ports.bus import BusState
from fastapi_cacheinval.telemetry.counters import Counters

__all__ = ["report"]


def report(
    engine: Engine,
    counters: Counters,
    bus: BusState,
    runtimes: Mapping[asyncio.AbstractEventLoop, Runtime],
    sources: Sources,
    *,
    enabled: bool,
    in_flight_bytes: int,
    by_route: bool,
    shadow: ShadowStatistics,
) -> Statistics:
    """A snapshot: what is kept, what was answered, for `by_route` of each route too, and how the replica stands."""
    store, replica, routes = engine.store.statistics(), engine.replica, counters.routes
    running = list(runtimes.values())
    return Statistics(
        enabled=enabled,
        responses=store.responses,
        aliases=store.aliases,
        size_bytes=store.size_bytes,
        max_bytes=store.max_bytes,
        evicted=store.evicted_for_room,
        reclaimed=store.reclaimed,
        in_flight_bytes=in_flight_bytes,
        hits=routes.front_hits + routes.total(Result.HIT),
        stale=routes.total(Result.STALE),
        misses=routes.total(Result.MISS),
        collapsed=routes.total(Result.COLLAPSED),
        bypassed=routes.total(Result.BYPASS),
        fills=dict(counters.fills),
        refused=dict(counters.details),
        refreshes=dict(counters.refreshes),
        purges=dict(counters.purges),
        dropped_tags=counters.dropped_tags,
        forwards_under_way=sum(len(runtime.flights) for runtime in running),
        refreshing=sum(runtime.refreshing for runtime in running),
        term=replica.term.number,
        applied=replica.applied,
        generation=replica.generation,
        lease_remaining=replica.lease_until - engine.now(),
        connected=bus.connected,
        lag=replica.lag,
        queue_length=bus.queue_length,
        resets=counters.resets.total(),
        l2=dict(counters.l2_events),
        downstream=dict(counters.downstream),
        sources=sources.states(),
        waiting=sum(runtime.waiting for runtime in running),
        max_refreshes=engine.settings.max_refreshes * len(running),
        queue_age=0.0 if bus.oldest is None else max(0.0, engine.now() - bus.oldest),
        fences=replica.fences,
        reset_causes=dict(counters.resets),
        mutations=dict(counters.mutations),
        shadow=shadow,
        routes=FrozenMapping(routes.statistics() if by_route else {}),
    )
