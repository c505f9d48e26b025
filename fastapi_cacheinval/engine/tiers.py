"""The composition root of what an `HTTPCache` shares with other replicas: the log and L2 over one Redis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.bus.fleet import RedisFleet
from fastapi_cacheinval.bus.redis import RedisLog, Sight
from fastapi_cacheinval.bus.summaries import RedisSummaries
from fastapi_cacheinval.connections.urls import Connect
from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.engine.clocks import ClockEstimate
from fastapi_cacheinval.engine.engine import Engine
from fastapi_cacheinval.engine.fill_lock import Own
from fastapi_cacheinval.engine.l2 import L2Tier
from fastapi_cacheinval.engine.l2_values import L2Values
from fastapi_cacheinval.engine.log_observer import LogObserver
from fastapi_cacheinval.engine.process_name import process_name
from fastapi_cacheinval.engine.roll_call import RollCall
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.engine.shared_bus import SharedBus
from fastapi_cacheinval.engine.summaries import SummaryFacts, SummaryWriter
from fastapi_cacheinval.ports.telemetry import Telemetry
from fastapi_cacheinval.ports.tracing import Tracing
from fastapi_cacheinval.stores.codec import Codec
from fastapi_cacheinval.stores.redis import RedisStore
from fastapi_cacheinval.stores.roll import RedisRoll

__all__ = ["SharedTiers", "key_prefix"]

# Seconds for which requests do without L2 after it was out of reach; the log is asked all the time.
_L2_REST = 1.0


def key_prefix(namespace: str, version: str) -> str:
    """What begins every key in Redis: no two caches share one, and no brace of theirs moves a key to another slot."""
    return f"{quote(namespace, safe='')}:{quote(version, safe='')}" if version else quote(namespace, safe="")


class SharedTiers:
    """Makes, for each event loop, the adapters of one cache."""

    def __init__(self, settings: Settings, connect: Connect, engine: Engine) -> None:
        self._engine = engine
        self._settings = settings
        self._connect = connect
        # Releases of an app that store apart for a while change the same data: each has to hear the other's purges. So
        # the log, and what stands beside it, is under a prefix that has no version.
        self._shared_prefix = key_prefix(settings.namespace, "")
        self._prefix = key_prefix(settings.namespace, settings.version)
        self._sight = Sight()
        # What heartbeats tell of the log's clock: stored responses are sealed with its time, whoever wrote them.
        self._server_clock = ClockEstimate()

    def bus(self, observer: LogObserver) -> SharedBus:
        """The purge log."""
        settings, keys = self._settings, log_keys(self._shared_prefix)
        return SharedBus(
            lambda: RedisLog(
                self._connect(),
                keys,
                bound=settings.staleness_bound,
                life=partial(getattr, self._engine, "longest_life"),
                sight=self._sight,
                origin=process_name(),
                confirm_replicas=settings.confirm_replicas,
            ),
            self._engine.replica,
            observer,
            self._engine.clock,
            bound=settings.staleness_bound,
            timeout=settings.call_timeout,
            server_clock=self._server_clock,
        )

    def l2(
        self, telemetry: Telemetry, tracing: Tracing, own: Own, facts: SummaryFacts, identity: Callable[[], str]
    ) -> L2Tier:
        """L2, and beside it what this replica tells of itself; `identity` is its id in the log."""
        settings = self._settings
        secret = settings.secret.encode() if isinstance(settings.secret, str) else settings.secret
        client = self._connect(rest=_L2_REST)
        store = RedisStore(client, self._prefix, quiet=settings.staleness_bound)
        codec = Codec(secret, most_bytes=settings.max_body_bytes)
        roll_call = RollCall(
            RedisRoll(client, self._shared_prefix),
            self._engine.apps,
            self._engine.clock,
            namespace=settings.namespace,
            delay=settings.staleness_bound,
        )
        values = L2Values(store, codec, self._engine, telemetry, self._server_clock.server_time)
        summaries = SummaryWriter(RedisSummaries(client, self._shared_prefix), facts, identity)
        return L2Tier(values, self._engine, telemetry, tracing, own, self._engine.lives, (roll_call, summaries))

    async def fleet(self) -> Fleet:
        """All replicas of the namespace as Redis tells of them; raises `TierUnavailable`."""
        client = self._connect()
        try:
            return await RedisFleet(client, self._settings.namespace, self._shared_prefix).read()
        finally:
            await client.close()
