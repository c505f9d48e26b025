"""Processes that are made after the cache was and before it is started: preloaded apps and worker pools."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from fastapi_cacheinval import HTTPCache
from tests.helpers.life import ROOT, client_of, counting_app

# In a process of its own: a fork of the test run would carry its threads' locks along.
PRELOADED = """
import asyncio, json, os
from tests.helpers.life import client_of, counting_app
from fastapi_cacheinval import HTTPCache, cached

cache = HTTPCache()
app, counted = counting_app(cache)

@app.get("/tenant", dependencies=[cached(ttl=60, partition_by=lambda: "acme")])
async def tenant() -> int:
    return counted()

async def life():
    said = []
    async with client_of(app) as client:
        for method, path in (("GET", "/it"), ("GET", "/it"), ("PUT", "/it"), ("GET", "/it"), ("GET", "/tenant")):
            said.append((await client.request(method, path)).headers.get("cache-status", "").split(";")[1:2])
    return {
        "said": [" ".join(each).strip() for each in said],
        "secret": cache._core.secret.hex(),
        "nonce": cache._core.engine.replica.term.nonce,
        "draws": [cache._core.engine.draw() for _ in range(3)],
        "applied": cache.statistics().applied,
        "calls": counted.calls,
    }

pipes = []
for _ in range(2):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, json.dumps(asyncio.run(life())).encode())
        os._exit(0)
    os.close(writing)
    pipes.append((child, reading))
children = []
for child, reading in pipes:
    with os.fdopen(reading) as pipe:
        children.append(json.load(pipe))
    assert os.waitpid(child, 0)[1] == 0
print(json.dumps([asyncio.run(life()), *children]))
"""


def _run() -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELOADED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_processes_forked_before_the_start_each_have_a_cache_of_their_own() -> None:
    """Parent and two forked children fill, hit, purge and miss; nothing one does shows in another."""
    lives = _run()
    assert [life["said"] for life in lives] == [["fwd=uri-miss", "hit", "", "fwd=uri-miss", "fwd=uri-miss"]] * 3
    assert [life["calls"] for life in lives] == [3, 3, 3]
    assert [life["applied"] for life in lives] == [1, 1, 1]


def test_what_must_differ_between_processes_is_made_at_start() -> None:
    """Secrets, the log's nonce and the draws of jitter are each process's own, not copies of what was preloaded."""
    lives = _run()
    for name in ("secret", "nonce", "draws"):
        assert len({str(life[name]) for life in lives}) == 3, name


def test_making_a_cache_needs_no_loop_no_random_bytes_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTPCache()` at import time: nothing is drawn or started that a fork would share."""

    def refuse(*_: object) -> bytes:
        raise AssertionError("drawn too early")

    monkeypatch.setattr("secrets.token_bytes", refuse)
    monkeypatch.setattr("secrets.token_hex", refuse)
    monkeypatch.setattr("os.urandom", refuse)
    threads = threading.active_count()
    cache = HTTPCache()
    assert threading.active_count() == threads
    monkeypatch.undo()

    async def start() -> int:
        async with cache:
            return len(cache._core.secret)

    assert asyncio.run(start()) == 32


def _child(queue: multiprocessing.Queue[str]) -> None:
    async def life() -> str:
        app, _ = counting_app()
        async with client_of(app) as client:
            await client.get("/it")
            return (await client.get("/it")).headers["cache-status"]

    queue.put(asyncio.run(life()))


def test_a_spawned_process_caches_too() -> None:
    """`multiprocessing` with spawn: the child imports, starts and answers a hit."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    try:
        assert queue.get(timeout=30).startswith("cacheinval; hit")
    finally:
        process.join(30)
    assert process.exitcode == 0
