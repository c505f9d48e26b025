"""The life that all sources share: begun and ended with the cache, begun again after whatever goes wrong, told as it is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, CacheNotRunning, ConfigurationError, HTTPCache, SourceState
from fastapi_cacheinval.sources import Source
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.fleet import eventually
from tests.helpers.life import ROOT
from tests.helpers.telemetry import Recorded

pytestmark = pytest.mark.anyio

Step = Callable[["Scripted"], Awaitable[None]]


class Scripted(Source):
    """A source that does one step at each attempt, and the last of them for ever."""

    def __init__(self, cache: HTTPCache, *steps: Step, name: str = "scripted") -> None:
        super().__init__(cache, name)
        self.steps = deque(steps)
        self.attempts = 0
        self.contexts: list[str] = []

    async def serve(self) -> None:
        self.attempts += 1
        self.contexts.append(who.get())
        if self.steps:
            await self.steps.popleft()(self)
        else:
            await working(self)


who: ContextVar[str] = ContextVar("who", default="nobody")


async def working(source: Scripted) -> None:
    """In touch until it is cancelled."""
    source.well()
    await asyncio.Event().wait()


def raising(error: BaseException) -> Step:
    """An attempt that fails at once."""

    async def fail(source: Scripted) -> None:
        raise error

    return fail


def state_of(cache: HTTPCache, name: str = "scripted") -> SourceState:
    """How a source stands, as statistics tell."""
    state = cache.statistics().sources[name]
    assert isinstance(state, SourceState)
    return state


async def tried(source: Scripted, clock: FakeClock, times: int) -> None:
    """Let time pass until it has made so many attempts."""
    while source.attempts < times:
        await eventually(lambda: clock.waiting or source.attempts >= times, "the pause after a failure")
        clock.tick(60)
    assert source.attempts == times


# -- life -------------------------------------------------------------------------------------


async def test_it_runs_as_long_as_the_cache_and_again_with_it() -> None:
    """Running and connected between start and stop, neither after it; at the next start it works again."""
    cache = HTTPCache()
    source = Scripted(cache)
    cache.attach(source)
    assert state_of(cache) == SourceState()
    for life in (1, 2):
        async with cache:
            await eventually(lambda: state_of(cache).connected, "its being in touch")
            assert state_of(cache).running
            assert "'scripted' running" in repr(source)
        assert (state_of(cache).running, state_of(cache).connected) == (False, False)
        assert source.attempts == life


async def test_run_works_alone_and_ends_the_cache_with_itself() -> None:
    """`run()` starts the cache for itself; cancelled, both are stopped."""
    cache = HTTPCache()
    source = Scripted(cache)
    worker = asyncio.ensure_future(source.run())
    await eventually(lambda: source.state().connected, "its being in touch")
    assert cache.running
    worker.cancel()
    await asyncio.wait((worker,))
    assert worker.cancelled()
    assert not cache.running
    assert not source.state().running


@pytest.mark.parametrize("alone", [True, False])
async def test_a_client_that_swallows_the_cancellation_does_not_keep_it(alone: bool) -> None:
    """A cancellation that comes out as nothing, or as another error, ends the source all the same, attached and alone."""

    async def swallow(source: Scripted) -> None:
        source.well()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if alone:
                # As `asyncio.wait_for` may before Python 3.12.
                return
            raise ConnectionError("closing failed") from None

    cache = HTTPCache()
    source = Scripted(cache, swallow)
    if alone:
        worker = asyncio.ensure_future(source.run())
    else:
        cache.attach(source)
        await cache.start()
    await eventually(lambda: source.state().connected, "its being in touch")
    if alone:
        worker.cancel()
        await asyncio.wait((worker,))
        assert worker.cancelled()
    else:
        await cache.stop()
    assert source.attempts == 1
    assert source.state() == SourceState()


def test_loops_that_close_over_it_leave_nothing_behind() -> None:
    """`asyncio.run` that ends without a stop takes the source along; on the next loop it is entered again and works."""
    cache = HTTPCache()
    source = Scripted(cache)
    cache.attach(source)

    async def live() -> None:
        await cache._core.started()
        await eventually(lambda: source.state().connected, "its being in touch")

    for life in (1, 2, 3):
        asyncio.run(live())
        assert source.attempts == life
        assert source.state() == SourceState()


def test_it_lives_with_a_test_client_each_time_and_without_its_lifespan() -> None:
    """One app under several test clients, each with a loop of its own, and under one that never starts the lifespan."""
    cache = HTTPCache()
    source = Scripted(cache)
    cache.attach(source)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/running")
    async def running() -> bool:
        await eventually(lambda: source.state().connected, "its being in touch")
        return source.state().running

    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/running").json() is True
        assert not source.state().running
    for _ in range(2):
        assert TestClient(app).get("/running").json() is True
        assert not source.state().running
    assert source.attempts == 4


async def test_the_request_that_starts_the_cache_does_not_lend_it_its_context() -> None:
    """Context variables of whoever starts the cache never reach a source: neither their user nor their span."""
    cache = HTTPCache()
    source = Scripted(cache)
    cache.attach(source)
    who.set("alice")
    async with cache:
        await eventually(lambda: source.state().connected, "its being in touch")
    assert source.contexts == ["nobody"]


FORKED = """
import asyncio, json, os
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.sources import Source

class Waiting(Source):
    async def serve(self):
        self.well()
        await asyncio.Event().wait()

cache = HTTPCache()
cache.attach(Waiting(cache, "waiting"))

async def life():
    async with cache:
        while not cache.statistics().sources["waiting"].connected:
            await asyncio.sleep(0)
    return cache.statistics().sources["waiting"].running

reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, json.dumps(asyncio.run(life())).encode())
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    told = json.load(pipe)
assert os.waitpid(child, 0)[1] == 0
print(json.dumps([asyncio.run(life()), told]))
"""


def test_one_made_before_a_fork_lives_on_both_sides() -> None:
    """A preloading server makes the source in the parent and starts it in the children: nothing is bound before that."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, False]


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionError("refused"), "ConnectionError: refused"),
        (asyncio.CancelledError("a future of its client"), "CancelledError: a future of its client"),
        (ExceptionGroup("several", [ExceptionGroup("inner", [OSError("down")]), ValueError()]), "OSError: down"),
        (BaseExceptionGroup("several", [asyncio.CancelledError("inside")]), "CancelledError: inside"),
        (type("Panic", (BaseException,), {})("native"), "Panic: native"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_an_attempt_raises_it_is_told_and_made_again(error: BaseException, told: str) -> None:
    """Errors, groups, cancellations that nobody asked for, and panics: each is counted, told, and followed by an attempt."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    source = Scripted(cache, raising(error))
    cache.attach(source)
    async with cache:
        await eventually(lambda: state_of(cache).failures, "the failure")
        assert (state_of(cache).trouble, state_of(cache).running, state_of(cache).connected) == (told, True, False)
        await tried(source, clock, 2)
        await eventually(lambda: state_of(cache).connected, "its being in touch again")
        assert (state_of(cache).trouble, state_of(cache).failures) == ("", 1)


async def test_a_group_of_tasks_that_fails_is_begun_again_each_time() -> None:
    """A `TaskGroup` cancels the task that it is in when one of its own fails: that does not end the source."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)

    async def group(source: Scripted) -> None:
        async def fail() -> None:
            raise ConnectionError("refused")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            tasks.create_task(asyncio.Event().wait())

    source = Scripted(cache, group, group, group)
    cache.attach(source)
    async with cache:
        await tried(source, clock, 4)
        assert state_of(cache).failures == 3
        assert state_of(cache).running


@pytest.mark.parametrize("last", [SystemExit("enough"), BaseExceptionGroup("several", [SystemExit("enough")])])
def test_what_ends_the_process_is_not_tried_again(last: BaseException) -> None:
    """`SystemExit`, in a group too, ends the worker that runs it."""
    cache = HTTPCache()
    source = Scripted(cache, raising(last))
    with pytest.raises(BaseException, match=r"enough|several"):
        asyncio.run(source.run())
    assert source.attempts == 1
    assert source.state() == SourceState()


async def test_attempts_are_paused_longer_each_time_and_from_the_start_when_it_was_well() -> None:
    """A tenth of a second doubles to half a minute, less up to half of it by chance; success begins anew."""
    clock = FakeClock()
    pauses: list[float] = []
    call_later = clock.call_later

    def noted(seconds: float, ring: Callable[[], object]) -> Any:
        pauses.append(seconds)
        return call_later(seconds, ring)

    clock.call_later = noted  # type: ignore[method-assign]
    cache = HTTPCache(clock=clock)

    async def well(source: Scripted) -> None:
        source.well()
        raise ConnectionError("lost")

    source = Scripted(cache, *[raising(ConnectionError("refused"))] * 12, well)
    cache.attach(source)
    async with cache:
        await tried(source, clock, 14)
    for seconds, most in zip(
        pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0, 0.1], strict=True
    ):
        assert most / 2 <= seconds <= most


async def test_trouble_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Five failures in a row are one error in the log, and being well again is one line."""
    caplog.set_level(logging.INFO, "fastapi_cacheinval.contrib")
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    source = Scripted(cache, *[raising(ConnectionError("refused"))] * 5)
    cache.attach(source)
    async with cache:
        await tried(source, clock, 6)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "scripted is in trouble and tries again: ConnectionError: refused"),
        ("INFO", "scripted works again"),
    ]


async def test_a_new_life_begins_without_the_trouble_of_the_last() -> None:
    """Started again, it is not in trouble until something fails again, and its counts go on."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    source = Scripted(cache, raising(ConnectionError("refused")))
    cache.attach(source)
    async with cache:
        await eventually(lambda: state_of(cache).trouble, "the trouble")
    assert state_of(cache).trouble
    async with cache:
        assert (state_of(cache).trouble, state_of(cache).failures) == ("", 1)


# -- mistakes -----------------------------------------------------------------------------------


async def test_it_is_entered_once() -> None:
    """Attached and entered besides, or attached to two caches: the second is an error that says so, and the first goes on."""
    cache, other = HTTPCache(), HTTPCache()
    source = Scripted(cache)
    cache.attach(source)
    other.attach(source)
    async with cache:
        with pytest.raises(ConfigurationError, match="runs already"):
            await source.__aenter__()
        with pytest.raises(ConfigurationError, match="runs already"):
            await other.start()
        assert not other.running
        await eventually(lambda: state_of(cache).connected, "its being in touch")


async def test_it_works_for_a_cache_that_runs() -> None:
    """Entered without its cache, or attached to another one, it says what to do in place of purging nothing for ever."""
    cache, other = HTTPCache(), HTTPCache()
    source = Scripted(cache)
    with pytest.raises(CacheNotRunning, match="attach it to that cache"):
        await source.__aenter__()
    other.attach(source)
    with pytest.raises(CacheNotRunning, match="attach it to that cache"):
        await other.start()
    assert source.attempts == 0


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_text(name: Any) -> None:
    """What statistics and metrics name has a name."""
    with pytest.raises(ConfigurationError, match="a name"):
        Scripted(HTTPCache(), name=name)


def test_the_cache_is_a_cache() -> None:
    """An app in a cache's place is noticed where it is written."""
    with pytest.raises(ConfigurationError, match="takes the HTTPCache"):
        Scripted(FastAPI())  # type: ignore[arg-type]


# -- what is told -------------------------------------------------------------------------------


async def test_the_metrics_say_what_statistics_say() -> None:
    """Events by source and kind, what waits in and outside, and whether it is in touch; two caches' sources of one name add up."""
    recorded = Recorded()
    caches = [HTTPCache(**recorded.providers) for _ in range(2)]
    sources = [Scripted(cache, name="queue") for cache in caches]
    for cache, source in zip(caches, sources, strict=True):
        cache.attach(source)
    async with caches[0], caches[1]:
        await eventually(lambda: all(source.state().connected for source in sources), "their being in touch")
        sources[0].count(received=5, done=3, refused=1)
        sources[0].note(waiting=1, lag=7)
        sources[1].count(received=2, done=2)
        assert recorded.values("cacheinval.source.events", "cacheinval.source", "cacheinval.event") == {
            ("queue", "received"): 7,
            ("queue", "done"): 5,
            ("queue", "refused"): 1,
            ("queue", "failed"): 0,
        }
        assert recorded.values("cacheinval.source.lag", "cacheinval.source") == {("queue",): 8}
        assert recorded.values("cacheinval.source.connected", "cacheinval.source") == {("queue",): 1}
        sources[1].troubled(ConnectionError("refused"))
        sources[1].note(connected=False)
        assert recorded.values("cacheinval.source.connected", "cacheinval.source") == {("queue",): 0}
        assert (
            recorded.values("cacheinval.source.events", "cacheinval.source", "cacheinval.event")["queue", "failed"] == 1
        )
        state = caches[0].statistics().sources["queue"]
        assert isinstance(state, SourceState)
        assert (state.received, state.done, state.refused, state.waiting, state.lag) == (5, 3, 1, 1, 7)
