"""The showroom's hits are answered inside the server, alone and as one of several replicas."""

from __future__ import annotations

from pathlib import Path

import pytest
from uvicorn.main import main as command

from example_app.demo import SERVER
from example_app.main import create_app
from example_app.replicas import HOST
from tests.uvicorn.serving import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


@pytest.mark.parametrize("replicas", ["", "http://127.0.0.1:8000 http://127.0.0.1:8001"])
async def test_the_showrooms_hits_are_answered_inside_the_server(
    replicas: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list of products is answered in the protocol once it is stored, where it is asked for by the shop's name."""
    monkeypatch.setenv("REPLICAS", replicas)
    monkeypatch.setenv("EXAMPLE_DB", str(tmp_path / "showroom.db"))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("VARNISH_URL", raising=False)
    async with serving(create_app()) as site:
        connection = await site.connect()
        host = f"Host: {HOST.decode()}"
        for _ in range(3):
            answer = await connection.ask("/products", host)
        site.own()
        again = await connection.ask("/products", host)
        assert site.own() == 1
        assert b"cache-status: cacheinval; hit" in again
        assert again.partition(b"\r\n\r\n")[2] == answer.partition(b"\r\n\r\n")[2]
        # By another name the layer before the cache is asked, and says who has answered.
        other = await connection.ask("/products", "Host: 127.0.0.1:8000")
        assert (b"x-replica" in other) is bool(replicas)
        assert site.own() == 0


def test_the_demos_replicas_are_told_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make demo` gives to its replicas' environment, uvicorn's command takes as its `--http`."""
    for name, value in SERVER.items():
        monkeypatch.setenv(name, value)
    context = command.make_context("uvicorn", ["example_app.main:app"], **command.context_settings)
    assert context.params["http"] == "fastapi_cacheinval.uvicorn:CacheProtocol"
