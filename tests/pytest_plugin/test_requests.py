"""What is no GET of a cached route goes on as it came, whatever the app is made of."""

from __future__ import annotations

import textwrap

import pytest

from tests.pytest_plugin.conftest import Run

APP = """
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.gzip import GZipMiddleware
from fastapi_cacheinval import CacheMiddleware, cached


@pytest.fixture
def cache_under_test():
    return None


def number() -> int:
    return 1


def make(cache, **options):
    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=10)
    app.add_middleware(CacheMiddleware, cache=cache, **options)
    mounted = FastAPI()

    @app.get("/stream", dependencies=[cached(ttl=60)])
    async def stream():
        async def parts():
            for _ in range(3):
                yield b"x" * 100
        return StreamingResponse(parts())

    @app.websocket("/talk")
    async def talk(socket: WebSocket):
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.get("/number", dependencies=[cached(ttl=60)])
    async def read_number(n: int = Depends(number)) -> int:
        return n

    @mounted.get("/things/{thing}", dependencies=[cached(ttl=60)])
    async def read_thing(thing: int) -> int:
        return thing

    app.mount("/mounted", mounted)
    return app
"""


@pytest.mark.parametrize(
    "options", ["", "honour_headers=True", "front=False", "emit_cache_status=False"], ids=lambda each: each or "plain"
)
def test_requests_of_all_kinds_are_answered_as_without_the_searches(run: Run, options: str) -> None:
    """Streams, ranges, conditions, HEAD, WebSockets, mounts and errors: each answer is the one of a run without them."""
    source = f"""
    def test_it(http_cache, assert_never_stale):
        with TestClient(make(http_cache, {options})) as client:
            told = []
            for _ in range(2):
                for fields in ({{}}, ANN, {{"accept-encoding": "identity"}}, {{"if-none-match": "*"}}, {{"range": "bytes=0-3"}}):
                    for path in ("/stream", "/plain", "/mounted/things/1", "/mounted/things/none", "/nothing"):
                        for method in ("GET", "HEAD", "OPTIONS"):
                            answer = client.request(method, path, headers=fields)
                            told.append((path, method, answer.status_code, answer.content))
            with client.websocket_connect("/talk") as socket:
                assert socket.receive_text() == "hello"
            client.post("/stream")
        print("told", [(status, len(content)) for _, _, status, content in told])
    """
    runs = [
        run("leaky", APP + textwrap.dedent(source), "-s", *found)
        for found in ((), ("--cacheinval-leaks", "--cacheinval-missing-tags", "--cacheinval-unpurged"))
    ]
    told = [next(line for line in ran.text.splitlines() if "told" in line) for ran in runs]
    assert [ran.counts for ran in runs] == [{"passed": 1}] * 2, runs[1].text
    assert told[0] == told[1]


def test_overridden_dependencies_and_the_kill_switch_are_no_faults(run: Run) -> None:
    """What an override fills is kept apart; a cache that is off hands out nothing."""
    source = """
    def test_overrides(http_cache):
        app = make(http_cache)
        with TestClient(app) as client:
            assert client.get("/number").json() == 1
            app.dependency_overrides[number] = lambda: 2
            assert client.get("/number").json() == 2
            app.dependency_overrides.clear()
            assert client.get("/number").json() == 1

    def test_off(http_cache):
        http_cache.enabled = False
        with TestClient(make(http_cache)) as client:
            client.get("/number")

    def test_several_loops(http_cache):
        client = TestClient(make(http_cache))
        for _ in range(3):
            client.get("/number")
            client.post("/number")
    """
    ran = run("leaky", APP + textwrap.dedent(source), "--cacheinval-leaks", "--cacheinval-unpurged")
    assert ran.counts == {"passed": 3}, ran.text
    assert " 0 found" in ran.text
