"""`cacheinval explain` says what a request would get, by the app and the log, without making it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from tests.cli.calls import Called, called
from tests.helpers.fleet import CALM, SECRET, eventually
from tests.helpers.http import ask
from tests.servers import Valkey
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio

APP = """
from typing import Annotated
from fastapi import Depends, FastAPI, Header
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
ran = []
async def lifespan(app):
    ran.append("lifespan")
    yield
cache = HTTPCache.from_url({url!r}, **{options!r})
app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware, cache=cache)
@app.get("/items/{{name}}", dependencies=[cached(ttl=60, jitter=0, tags=["item:{{name}}"])])
async def read(name: str) -> str:
    ran.append(name)
    return name
@app.get("/plain")
async def plain() -> str: ...
def tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant
@app.get("/mine", dependencies=[cached(ttl=60, partition_by=tenant)])
async def mine(name: Annotated[str, Depends(tenant)]) -> str: ...
@app.put("/items/{{name}}", dependencies=[invalidates("item:{{name}}")])
async def write(name: str) -> None: ...
"""
URL = "http://test.example/items/a"
numbers = itertools.count()


class Shop:
    """An app as a module that can be imported anew, as another process would."""

    def __init__(self, directory: Path, url: str) -> None:
        self.name = f"explained_{next(numbers)}"
        self.directory = directory
        (directory / f"{self.name}.py").write_text(APP.format(url=url, options={"secret": SECRET, **CALM}), "utf-8")

    async def serve(self, work: Callable[[Any, HTTPCache], Any]) -> None:
        """Start it, use it, stop it, and forget it."""
        module = importlib.import_module(self.name)
        await module.cache.start()
        try:
            await work(module.app, module.cache)
        finally:
            await module.cache.stop()
            del sys.modules[self.name]

    async def explained(self, *arguments: str, columns: int = 100) -> Called:
        """Ask the command."""
        call = ("explain", "--app", f"{self.name}:app", "--app-dir", str(self.directory), *arguments)
        try:
            return await asyncio.to_thread(called, *call, env={"COLUMNS": str(columns)})
        finally:
            self.ran = list(sys.modules[self.name].ran)
            del sys.modules[self.name]


@pytest.fixture
async def shop(redis_server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An app whose `/items/a` is stored in Redis, whose `/items/b` was purged, and that does not run."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    made = Shop(tmp_path, redis_server.url)

    async def use(app: Any, cache: HTTPCache) -> None:
        for name in ("a", "b"):
            await ask(app, f"/items/{name}", host="test.example")
        await eventually(lambda: cache.statistics().l2.get("write", 0) == 2, "both in Redis")
        await cache.invalidate("item:b")

    await made.serve(use)
    return made


async def test_a_page_that_is_stored_would_be_a_hit(shop: Shop) -> None:
    """Its route, its key, where it is stored and for how long, without the app's lifespan or handler."""
    shown = await shop.explained(URL)
    assert shown.code == 0
    assert shown.out.startswith("GET /items/a: hit\n")
    assert "  route         GET /items/{name}\n" in shown.out
    assert "  tags          item:a\n" in shown.out
    assert "in Redis: status 200" in shown.out
    assert "never, as far as the log remembers" in shown.out
    assert shop.ran == []


async def test_a_page_that_was_purged_says_by_whom(shop: Shop) -> None:
    """The tag, the number and the process, from the log."""
    data = (await shop.explained("http://test.example/items/b", "--json")).json
    assert data["explanation"]["result"] == "miss"
    assert data["last_purge"]["tag"] == "item:b"
    assert data["last_purge"]["seq"] == 1
    assert data["last_purge"]["origin"]


async def test_what_is_not_cached_and_what_matches_nothing(shop: Shop) -> None:
    """A route without a policy is one; a URL that no route answers has an exit code of its own."""
    plain = await shop.explained("http://test.example/plain")
    assert (plain.code, plain.out.splitlines()[0]) == (0, "GET /plain: bypass")
    nothing = await shop.explained("http://test.example/nothing/\x1b[31m")
    assert nothing.code == 1
    assert "No route of this app answers GET here." in nothing.out
    assert "\x1b" not in nothing.out
    mutation = await shop.explained(URL, "--method", "PUT")
    assert "It purges item:{name}" in mutation.out


async def test_a_partition_is_named_and_its_value_is_not(shop: Shop) -> None:
    """What depends on the caller is unknown, and no header is shown."""
    shown = await shop.explained("http://test.example/mine", "-H", "X-Tenant: hidden-value", columns=60)
    assert shown.code == 0
    assert "unknown" in shown.out
    assert "tenant" in shown.out
    assert "hidden-value" not in shown.out + shown.err
    assert max(map(len, shown.out.splitlines())) <= 60


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/items/a",), '--base-url "https://shop.example"'),
        (("not a url",), ""),
        ((URL, "--method", "G T"), "method"),
        ((URL, "-H", "no field"), "'Name: value'"),
        ((URL, "-H", "bad name: x"), "request header fields"),
    ],
)
async def test_a_wrong_call_says_how_to_write_it(shop: Shop, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2."""
    try:
        shown = await shop.explained(*arguments)
    except KeyError:
        # It was wrong before the app was imported.
        shown = await asyncio.to_thread(called, "explain", "--app", f"{shop.name}:app", *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert says in shown.err


async def test_a_path_has_a_base(shop: Shop) -> None:
    """Where the URL is given in two parts it is the same page."""
    assert (await shop.explained("/items/a", "--base-url", "http://test.example")).out.startswith("GET /items/a: hit\n")


async def test_without_an_app_the_log_is_asked(shop: Shop, cli: Any) -> None:
    """When the path was purged last, by that name or with everything."""
    assert "was never purged" in (await cli("explain", "/items/a")).out
    await cli("purge", "--path", "/items/a", "--soft")
    shown = await cli("explain", "http://test.example/items/a?x=1")
    assert "number 2, soft, of the path /items/a, at " in shown.out
    await cli("clear", "--yes")
    data = (await cli("explain", "/items/a", "--json")).json
    assert (data["explanation"], data["last_purge"]["tag"], data["last_purge"]["seq"]) == (None, "everything", 3)
    assert (await cli("explain", "/items/a", "--namespace", "typo")).code == 1
    empty = await cli("explain", "")
    assert (empty.code, empty.out) == (2, "")


async def test_a_purge_that_the_log_has_forgotten_is_still_a_number(shop: Shop, redis_server: Valkey, cli: Any) -> None:
    """The tag remembers its last line for longer than the log keeps it."""
    await cli("purge", "--path", "/items/a")
    redis_server.execute("XTRIM", "{cacheinval}:log", "MAXLEN", "0")
    assert "number 2, hard, of the path /items/a; the log does not keep" in (await cli("explain", "/items/a")).out


async def test_an_app_whose_redis_is_away_is_explained_without_it(tmp_path: Path, monkeypatch: Any) -> None:
    """Exit code 3: the route is told, nothing is said to be a miss or never purged, and the error is Redis's."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shown = await Shop(tmp_path, f"redis://127.0.0.1:{free_port()}/0").explained(URL)
    assert shown.code == 3
    assert shown.out.startswith("GET /items/a: unknown\n")
    assert "  route         GET /items/{name}\n" in shown.out
    assert "what is stored, and what was purged" in shown.out
    assert "last purge" not in shown.out
    assert "cannot be used" in shown.err
    assert "whether the server runs" in shown.err
    assert "Traceback" not in shown.err


async def test_an_app_whose_redis_needs_a_password_says_so(shop: Shop, redis_server: Valkey) -> None:
    """Exit code 3, with what to write; to programs it is no miss either."""
    redis_server.execute("CONFIG", "SET", "requirepass", "secret")
    try:
        shown = await shop.explained(URL, "--json")
    finally:
        redis_server.client.execute_command("AUTH", "secret")
        redis_server.execute("CONFIG", "SET", "requirepass", "")
    assert shown.code == 3
    assert (shown.json["explanation"]["result"], shown.json["last_purge"]) == ("unknown", None)
    assert "needs a password" in shown.err


async def test_an_app_that_keeps_all_in_its_process_is_not_taken_for_its_replicas(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Another process knows nothing of that memory: no miss, and no word of purges."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shown = await Shop(tmp_path, "memory://").explained(URL)
    assert shown.code == 0
    assert shown.out.startswith("GET /items/a: unknown\n")
    assert "memory://" in shown.out
    assert "last purge" not in shown.out


async def test_a_purge_of_another_path_is_not_the_last_one(shop: Shop, cli: Any) -> None:
    """The end of a URL's path is the path of another page, with the app and without it."""
    await cli("purge", "--path", "/a")
    await cli("purge", "--path", "/")
    assert (await shop.explained(URL, "--json")).json["last_purge"] is None
    await cli("purge", "--path", "/items/a")
    await cli("purge", "--path", "/")
    assert (await shop.explained(URL, "--json")).json["last_purge"]["tag"] == "the path /items/a"
    assert (await cli("explain", URL, "--json")).json["last_purge"]["tag"] == "the path /items/a"


async def test_a_long_url_is_cut(shop: Shop) -> None:
    """What it would get is still to be read."""
    shown = await shop.explained(f"http://test.example/items/{'x' * 9_000}")
    assert len(shown.out) < 2_000
    assert ": miss\n" in shown.out


async def test_an_app_that_refuses_to_start_says_why(tmp_path: Path, monkeypatch: Any) -> None:
    """Exit code 4, with what the app itself would say."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    refusing = Shop(tmp_path, f"redis://127.0.0.1:{free_port()}/0")
    path = tmp_path / f"{refusing.name}.py"
    path.write_text(path.read_text().replace(", partition_by=tenant", ""))
    shown = await refusing.explained(URL)
    assert shown.code == 4
    assert "does not start" in shown.err
    assert "/mine" in shown.err
