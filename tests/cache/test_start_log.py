"""What the server's output says at the start: two lines, or one refusal, and neither of them twice."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.cache.test_uvicorn import SOUND, UNSOUND
from tests.helpers.http import ask
from tests.helpers.life import uvicorn

pytestmark = pytest.mark.anyio

LINES = (
    "fastapi_cacheinval: 1 of 2 routes cached: 0 front, 1 route, 0 partitioned, 0 guarded.",
    "fastapi_cacheinval: The front lookup is off for the whole app: front=False.",
)
FRONT_OFF = SOUND.replace("add_middleware(CacheMiddleware)", "add_middleware(CacheMiddleware, front=False)")
CONFIGURED = "import logging\nlogging.basicConfig(level=logging.INFO)\n"


@pytest.mark.parametrize("head", ["", CONFIGURED], ids=["uvicorn", "own-logging"])
@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_two_lines_come_through_the_servers_log(tmp_path: Path, head: str, lifespan: str) -> None:
    """At INFO and once, without anything set up, beside an app's own logging, and without a lifespan."""
    with uvicorn(tmp_path, head + FRONT_OFF, "--lifespan", lifespan) as server:
        httpx.get(f"{server.url}/it")
        server.process.terminate()
        server.wait()
        for line in LINES:
            (found,) = [each for each in server.output.splitlines() if line in each]
            assert "INFO" in found


@pytest.mark.parametrize("head", ["", CONFIGURED], ids=["uvicorn", "own-logging"])
def test_what_its_author_has_to_mend_comes_there_too(tmp_path: Path, head: str) -> None:
    """As a warning, once, and with the name of the package."""
    idle = SOUND + '\n@app.post("/idle", dependencies=[cached(ttl=60)])\ndef idle() -> None: ...\n'
    with uvicorn(tmp_path, head + idle) as server:
        httpx.get(f"{server.url}/it")
        server.process.terminate()
        server.wait()
        (found,) = [each for each in server.output.splitlines() if "POST /idle declares cached()" in each]
        assert re.match(r"WARNING:.*fastapi_cacheinval: POST", found)


def test_a_refusal_is_printed_once(tmp_path: Path) -> None:
    """By the server, as the failure of the start; without a traceback."""
    with uvicorn(tmp_path, UNSOUND) as server:
        assert server.wait() != 0
        assert server.output.count("may answer each caller differently") == 1
        assert "Traceback" not in server.output


async def test_without_a_server_it_is_the_logger_of_the_package(caplog: Any) -> None:
    """Its two records are at INFO, the reasons of single routes at DEBUG."""
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(lambda: "")
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), front=False)
    caplog.set_level(logging.DEBUG, "fastapi_cacheinval")
    for _ in range(2):
        await ask(app, "/it")
    told = [(each.levelname, each.getMessage()) for each in caplog.records if "front" in each.getMessage()]
    off = "The front lookup is off for the whole app: front=False."
    assert told == [
        ("INFO", "fastapi_cacheinval: 1 of 1 route cached: 0 front, 1 route, 0 partitioned, 0 guarded."),
        ("INFO", f"fastapi_cacheinval: {off}"),
        ("DEBUG", off),
    ]
