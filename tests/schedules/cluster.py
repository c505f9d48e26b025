"""Replicas of one app on one event loop, which share a real Valkey and have gates on all their ways."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio
from fastapi import Depends, FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.bus.entries import encode_payload
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.mutations import Call, http_scope
from tests.schedules.ports import MARK, Actor, GatedLog, GatedStore, actor
from tests.schedules.reading import Reading
from tests.schedules.stage import Stage, Subscriptions
from tests.servers.valkey import Valkey

OLD, NEW = 1, 2
PREFIX = "cacheinval"
# So long that on the server, whose time is real, no lease and no lock ends within a test.
BOUND = 60.0
OPTIONS: dict[str, Any] = {"ttl": 10_000, "jitter": 0, "early_refresh": 0, "tags": ["item:{number}"]}


class Member:
    """One replica: its cache, its app, and its gated ways to Redis."""

    def __init__(self, name: str, cache: HTTPCache, play: Cluster) -> None:
        self.name = name
        self.cache = cache
        self.play = play
        self.app = play.app_of(cache, name)
        self.logs: list[GatedLog] = []
        inside: Any = cache._core
        connect = inside.bus._connect
        l2 = inside._tiers.l2

        def gated_log() -> GatedLog:
            self.logs.append(GatedLog(connect(), name, play.stage, play.subscriptions))
            return self.logs[-1]

        def gated_far(*args: Any) -> Any:
            tier = l2(*args)
            gated = GatedStore(tier._values.store, name, play.stage, play.subscriptions)
            tier._values.store = tier._locks._store = gated
            return tier

        inside.bus._connect = gated_log
        inside._tiers.l2 = gated_far

    @property
    def replica(self) -> Replica:
        """Its view of the log."""
        return self.cache._core.engine.replica

    def serves_at_once(self) -> None:
        """Its first requests have waited as long as they may for its start, which is not over."""
        core = self.cache._core
        (runtime,) = core.runtimes.values()
        core._open_l2(runtime)
        runtime.serving = True

    @property
    def log(self) -> GatedLog:
        """Its way to the log."""
        return self.logs[-1]

    @property
    def follower(self) -> Any:
        """What keeps it up to the log."""
        bus: Any = self.cache._core.bus
        return bus._followers[asyncio.get_running_loop()]


class Cluster:
    """The play: replicas, the value that their handlers read and write, and who acts in it."""

    def __init__(
        self, server: Valkey, names: tuple[str, ...], policy: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        self.server = server
        self.stage = Stage()
        self.subscriptions = Subscriptions()
        self.clock = FakeClock()
        self.value = OLD
        self.forwards = 0
        self.forwarding = 0
        self.most_forwarding = 0
        # In a list, whose text does not tell routes apart: replicas that join later have another path here.
        self._paths = ["/item/1"]
        self.fails = False
        self.policy = {**OPTIONS, **policy}
        self.settings = {
            "clock": self.clock,
            "staleness_bound": BOUND,
            "collapse_timeout": 1e6,
            "redis_timeout": 20.0,
            **settings,
        }
        self.tasks: list[asyncio.Task[Any]] = []
        self.members = {name: self._member(name) for name in names}
        self._marks = 0
        self._client = redis.asyncio.Redis(unix_socket_path=str(server.socket))

    def _member(self, name: str) -> Member:
        return Member(name, HTTPCache.from_url(self.server.unix_url, **self.settings), self)

    @property
    def path(self) -> str:
        """What requests ask for."""
        return self._paths[-1]

    @path.setter
    def path(self, path: str) -> None:
        self._paths.append(path)

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for member in self.members.values():
            await member.cache.start()
        await self.settled()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stage.free_all()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for member in self.members.values():
            await member.cache.stop()
        await self._client.aclose()

    async def joins(self, name: str) -> Member:
        """One more replica, started as far as its gates let it."""
        member = self.members[name] = self._member(name)
        self.acts(name, member.cache.start())
        await self.settled()
        return member

    async def settled(self) -> None:
        """Until nothing goes on any more unless a gate is opened or the clock ticked; all messages have arrived."""
        await self.stage.still()
        while self.subscriptions.pending:
            self.subscriptions.pending = False
            self._marks += 1
            message = b"1 0 %s %d - 0\n" % (MARK.encode(), self._marks)
            await self._client.publish(log_keys(PREFIX).channel, message + encode_payload(("-",), soft=False))
            key = urlsafe_b64encode(b"%s%d" % (MARK.encode(), self._marks)).rstrip(b"=")
            await self._client.publish(f"{{{PREFIX}}}:fills", key)
            await self.subscriptions.all(self._marks)
            await self.stage.still()

    # -- the app --------------------------------------------------------------------------------

    async def gate(self, label: str) -> None:
        """A gate of whoever runs this."""
        await self.stage.gate(f"{actor.get()}.{label}")

    def app_of(self, cache: HTTPCache, name: str) -> FastAPI:
        """The app, as one replica runs it."""
        app = FastAPI()
        # A text that a handler holds, in whatever object, tells routes apart, and these are one route's replicas: in a list
        # it counts for nothing.
        here = [name]

        async def gate(label: str) -> None:
            await self.stage.gate(f"{actor.get() or here[0]}.{label}")

        async def session() -> AsyncIterator[None]:
            yield
            await gate("commits")
            self.value = NEW
            await gate("committed")

        @app.get("/item/{number}", dependencies=[cached(**self.policy)])
        async def read(number: int) -> int:
            self.forwards += 1
            self.forwarding += 1
            self.most_forwarding = max(self.most_forwarding, self.forwarding)
            try:
                await gate("handler")
                value = self.value
                await gate("has-read")
            finally:
                self.forwarding -= 1
            if self.fails:
                raise RuntimeError("down")
            return value

        @app.put("/item/{number}", dependencies=[Depends(session), invalidates("item:{number}")])
        async def write(number: int) -> dict[str, bool]:
            await gate("writes")
            return {"ok": True}

        app.add_middleware(CacheMiddleware, cache=cache)
        return app

    # -- actors ---------------------------------------------------------------------------------

    def acts(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin what somebody does."""

        async def act() -> Any:
            actor.set(Actor(name))
            return await work

        task = asyncio.get_running_loop().create_task(act())
        self.tasks.append(task)
        return task

    def reads(self, name: str, at: str) -> Reading:
        """Begin a GET at a replica."""
        reading = Reading(self.stage.steps)
        self.acts(name, self._read(reading, self.members[at].app))
        return reading

    async def _read(self, reading: Reading, app: FastAPI) -> None:
        async def sends(message: Any) -> None:
            if reading.answered is None:
                reading.answered = self.stage.steps

        reading.call = Call(app, http_scope("GET", self.path), on_send=sends)
        try:
            reading.answer = await reading.call.answer()
        except RuntimeError:
            assert self.fails

    def mutates(self, name: str, at: str) -> Call:
        """Begin a PUT at a replica; its commit writes the new value."""
        token = actor.set(Actor(name))
        try:
            call = Call(self.members[at].app, http_scope("PUT", self.path))
        finally:
            actor.reset(token)
        self.tasks.append(call.task)
        return call

    def purges(self, at: str, **options: Any) -> asyncio.Task[Receipt]:
        """Begin a purge of what the path is tagged with, by hand."""
        return self.acts(f"{at}-writer", self.members[at].cache.invalidate(self.tag, **options))

    @property
    def tag(self) -> str:
        """The tag of the path."""
        return f"item:{self.path.rpartition('/')[2]}"

    def beats(self, *names: str) -> None:
        """Have replicas ask the log now."""
        for name in names:
            self.members[name].follower.want()

    def passes(self, seconds: float) -> None:
        """Let time pass, here and for all that has an end on the server."""
        self.clock.tick(seconds)
        client: Any = self.server.client
        for key in client.keys("*"):
            left = client.pttl(key)
            if left > 0:
                client.pexpire(key, max(1, left - int(seconds * 1000)))

    def opened_long_ago(self) -> None:
        """No lease of an earlier term can live any more: who waits for all waits for those of this one only."""
        state = log_keys(PREFIX).state.decode()
        opened: Any = self.server.client.hget(state, "opened")
        self.server.client.hset(state, "opened", int(opened) - int(2 * BOUND * 1_000_000))

    def log_saved(self) -> dict[bytes, bytes]:
        """The log as the server has it."""
        with self._raw() as client:
            found: Any = {key: client.dump(key) for key in log_keys(PREFIX)[:4]}
            return {key: data for key, data in found.items() if data is not None}

    def log_restored(self, saved: dict[bytes, bytes]) -> None:
        """The log as it was then: what a failover to a replica that was behind does to it."""
        with self._raw() as client:
            client.delete(*log_keys(PREFIX)[:4])
            for key, data in saved.items():
                client.restore(key, 0, data)

    def _raw(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.server.socket))

    # -- what comes of it -----------------------------------------------------------------------

    async def read(self, at: str) -> Reading:
        """A GET at a replica, to its end, and until all that follows from it has been done."""
        reading = self.reads("probe", at)
        await self.settled()
        assert reading.answer is not None, f"the probe stands at {sorted(self.stage.parked)}"
        return reading

    async def all_new(self, *names: str) -> None:
        """From now on everybody is given the new value, from what is kept at the latest the second time."""
        for name in names or self.members:
            first, second = await self.read(name), await self.read(name)
            assert (first.value, second.value, second.how) == (NEW, NEW, "hit"), f"{name}: {first} {second}"

    def locks(self) -> list[str]:
        """The fill locks that are held in the cluster; a mark that a key cannot be shared is none."""
        client: Any = self.server.client
        return [key for key in client.keys("*:f") if client.get(key) not in ("!", None)]

    def l2(self, name: str, event: str) -> int:
        """How often something happened to what a replica found, or stored, in L2."""
        return self.members[name].cache._core.counters.l2_events[event]
