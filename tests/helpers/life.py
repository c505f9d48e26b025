"""Apps that live and die: lifespans by hand, threads with loops of their own, and servers as real processes."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from tests.servers.child import Child
from tests.servers.waiting import until

# Real seconds after which a condition that has not come true fails its test.
PATIENCE = 30.0

ROOT = Path(__file__).parents[2]


class Counted:
    """How often the handlers of an app ran; any thread may count."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self.calls += 1
            return self.calls


def counting_app(cache: HTTPCache | None = None, *, middleware: bool = True, **options: Any) -> tuple[FastAPI, Counted]:
    """An app with a cached `GET /it` that answers how often it ran, and a `PUT /it` that purges its tag."""
    app = FastAPI(**options)
    counted = Counted()
    if middleware:
        app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/it", dependencies=[cached(ttl=60, jitter=0, early_refresh=0, tags=["it"])])
    async def read_it() -> int:
        return counted()

    @app.put("/it", dependencies=[invalidates("it")])
    async def write_it() -> None:
        pass

    return app, counted


class LifespanByHand:
    """An app's lifespan, driven message by message: what it was told is in `said`."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.said: list[Any] = []
        self._more = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def _send(self, message: Any) -> None:
        self.said.append(message)
        self._more.set()

    async def tell(self, kind: str) -> Any:
        """Send `startup` or `shutdown` and give the answer."""
        if self.task is None:
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
            self.task = asyncio.get_running_loop().create_task(self._app(scope, self._inbox.get, self._send))
        self._more.clear()
        await self._inbox.put({"type": f"lifespan.{kind}"})
        await asyncio.wait_for(self._more.wait(), PATIENCE)
        return self.said[-1]

    async def ended(self) -> None:
        """Wait for the app to return; raises what it raised."""
        assert self.task is not None
        await asyncio.wait_for(self.task, PATIENCE)


@asynccontextmanager
async def client_of(app: Any, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """An httpx client that calls the app on the running loop, without a lifespan."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test", **options
    ) as client:
        yield client


class LoopThread:
    """A thread with an event loop of its own, which runs coroutines for others."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine there and wait for what it gives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


@contextmanager
def loop_threads(count: int) -> Generator[list[LoopThread]]:
    """So many loops in so many threads."""
    threads = [LoopThread() for _ in range(count)]
    try:
        yield threads
    finally:
        for thread in threads:
            thread.close()


class Server:
    """uvicorn as a process of its own, with what it has written."""

    def __init__(self, process: Child) -> None:
        self.process = process

    @property
    def output(self) -> str:
        """All of standard output and error up to now."""
        return self.process.output

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds; fails with the server's output after a deadline, or once the server is gone."""

        def holds() -> object:
            alive = self.process.alive  # first: what it did before its end counts
            found = condition()
            assert found or alive, f"the server ended before {what}:\n{self.output}"
            return found

        until(holds, what, seconds=PATIENCE, detail=lambda: self.output)

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        pattern = re.compile(r"running on (http://[\d.]+:\d+)")
        self.until(lambda: pattern.search(self.output), "listening")
        found = pattern.search(self.output)
        assert found is not None
        return found[1]

    def wait(self) -> int:
        """Wait for its end; gives the exit status."""
        return self.process.wait(PATIENCE)


@contextmanager
def uvicorn(directory: Path, source: str, *options: str, **environment: str) -> Generator[Server]:
    """Serve `app` of a module with this source on a free port; ended with the block."""
    (directory / "served.py").write_text(source)
    command = [sys.executable, "-m", "uvicorn", "served:app", "--app-dir", str(directory), "--port", "0", *options]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = Child("uvicorn", command, directory, {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment})
    try:
        yield Server(process)
    finally:
        process.terminate()
