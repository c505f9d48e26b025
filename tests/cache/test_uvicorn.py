"""The same facts about start-up and workers under a real server."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from tests.helpers.life import uvicorn

SOUND = """
import os
from fastapi import FastAPI
from fastapi_cacheinval import CacheMiddleware, cached, invalidates

app = FastAPI()
app.add_middleware(CacheMiddleware)

@app.get("/it", dependencies=[cached(ttl=60, tags=["it"])])
async def it() -> int:
    return os.getpid()

@app.put("/it", dependencies=[invalidates("it")])
async def put() -> None:
    pass
"""

UNSOUND = """
from typing import Annotated
from fastapi import Cookie, FastAPI
from fastapi_cacheinval import CacheMiddleware, cached

app = FastAPI()
app.add_middleware(CacheMiddleware)

@app.get("/mine", dependencies=[cached(ttl=60)])
async def mine(session: Annotated[str, Cookie()] = "nobody") -> str:
    return session
"""

WARNING = "one of 2 workers"


def test_a_failing_audit_ends_the_server_with_its_message(tmp_path: Path) -> None:
    """The process exits non-zero and prints the audit's message; it does not go on without a lifespan."""
    with uvicorn(tmp_path, UNSOUND) as server:
        assert server.wait() != 0
        assert "Application startup failed" in server.output
        assert "/mine" in server.output
        assert "partition_by" in server.output
        assert "appears unsupported" not in server.output
        assert "running on" not in server.output


@pytest.mark.parametrize("lifespan", ["on", "off", "auto"])
def test_one_worker_serves_hits_and_says_nothing(tmp_path: Path, lifespan: str) -> None:
    """With and without a lifespan: miss, hit, purge, miss; the server's output has no warning and no error."""
    with uvicorn(tmp_path, SOUND, "--lifespan", lifespan, WEB_CONCURRENCY="1") as server:
        with httpx.Client(base_url=server.url) as client:
            answers = [client.get("/it"), client.get("/it"), client.put("/it"), client.get("/it")]
        assert ["hit" in answer.headers["cache-status"] for answer in (answers[0], answers[1], answers[3])] == [
            False,
            True,
            False,
        ]
        server.process.terminate()
        for word in ("WARNING", "ERROR", "Traceback", "workers:"):
            assert word not in server.output, server.output


@pytest.mark.parametrize(
    ("options", "environment"), [(("--workers", "2"), {}), ((), {"WEB_CONCURRENCY": "2"})], ids=["option", "variable"]
)
def test_two_workers_each_cache_and_warn_once(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    """Two real workers: both answer hits of their own, and each says once that purges do not reach the other."""
    with uvicorn(tmp_path, SOUND, *options, **environment) as server:
        url = server.url
        server.until(lambda: server.output.count("Application startup complete") == 2, "the start of both workers")
        pids: set[int] = set()

        def both_hit() -> bool:
            # A connection each: the kernel chooses the worker.
            answer = httpx.get(f"{url}/it")
            assert answer.status_code == 200
            if "hit" in answer.headers["cache-status"]:
                pids.add(answer.json())
            return len(pids) == 2

        server.until(both_hit, "a hit in both workers")
        assert os.getpid() not in pids
        assert server.output.count(WARNING) == 2


def test_reloading_does_not_warn(tmp_path: Path) -> None:
    """`--reload` starts one spawned worker; whatever WEB_CONCURRENCY says, there is no other."""
    with uvicorn(tmp_path, SOUND, "--reload", WEB_CONCURRENCY="2") as server:
        url = server.url
        server.until(lambda: "Application startup complete" in server.output, "the start")
        assert httpx.get(f"{url}/it").status_code == 200
        assert "workers:" not in server.output
