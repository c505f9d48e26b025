"""Two releases over one Redis, by headers: what a guess or a rule lets be reused skips no check that a release adds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import FileResponse

from fastapi_cacheinval import HeaderOptions, HeaderRule
from tests.helpers.checked import (
    CHECKS,
    DEFAULT,
    KEY,
    OVERRIDDEN,
    OWN_CODE,
    RULED,
    by_starlette,
    get,
    plain,
    release,
    route,
    user,
)
from tests.helpers.fleet import eventually, filled, found, replicas
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file that has a date to guess by."""
    (tmp_path / "page").write_text("page of many bytes")
    os.utime(tmp_path / "page", (1e9, 1e9))
    return tmp_path


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("options", [RULED, OVERRIDDEN], ids=["rule", "override"])
async def test_a_rule_spares_nobody_a_check_that_a_release_declares(
    redis_server: Valkey, folder: Path, check: str, options: HeaderOptions
) -> None:
    """The last release's page, stored by the same rule, is not handed out where a route asks who is calling."""
    makes = release(route(folder), options), release(CHECKS[check](folder), options)
    async with replicas(redis_server, *makes) as ((old, cache), (new, _)):
        await filled(old, cache, "/in/page")
        assert (await get(new)).status_code in (401, 403)
        assert (await get(new, headers=KEY)).status_code == 200
        assert (await get(new)).status_code in (401, 403)


@pytest.mark.parametrize("check", [*CHECKS, *OWN_CODE])
@pytest.mark.parametrize("options", [True, DEFAULT], ids=["heuristic", "default_ttl"])
async def test_a_guess_spares_nobody_a_check_that_a_release_adds(
    redis_server: Valkey, folder: Path, check: str, options: Any
) -> None:
    """Files were guessed for by the last release, and code answers in their place now."""
    makes = release(plain(folder), options), release({**CHECKS, **OWN_CODE}[check](folder), options)
    async with replicas(redis_server, *makes) as ((old, cache), (new, _)):
        await filled(old, cache, "/in/page")
        assert (await get(new)).status_code in (401, 403)
        assert (await get(new, headers=KEY)).status_code == 200
        assert (await get(new)).status_code in (401, 403)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"method": "HEAD"}, 403),
        ({"headers": {"range": "bytes=0-3"}}, 403),
        ({"headers": {"if-modified-since": "Sun, 09 Sep 2035 01:46:40 GMT"}}, 403),
        ({"headers": {"cache-control": "max-stale=100"}}, 403),
        ({"headers": {"cache-control": "only-if-cached"}}, 504),
    ],
    ids=str,
)
async def test_no_kind_of_request_gets_it(
    redis_server: Valkey, folder: Path, asked: dict[str, Any], expected: int
) -> None:
    """A HEAD, a range, a condition, and what may be stale or shall come out of the cache alone; none is foretold."""
    makes = release(plain(folder), True), release(OWN_CODE["subclass"](folder), True)
    async with replicas(redis_server, *makes) as ((old, cache), (new, own)):
        await filled(old, cache, "/in/page")
        assert (await get(new, "/other")).status_code == 404
        told = await own.explain("http://shop.test/in/page")
        assert (told.result, told.stored) == ("miss", ())
        assert (await get(new, **asked)).status_code == expected
        assert (await get(new, **asked)).status_code == expected


async def test_it_does_not_stand_in_for_an_error_nor_when_it_is_stale(redis_server: Valkey, folder: Path) -> None:
    """By a rule, with windows of its own for both."""
    options = HeaderOptions(rules=[("/in/*", 1)])
    said = {"cache-control": "stale-while-revalidate=600, stale-if-error=600"}

    def broken(x_plan: Annotated[str, Header()] = "") -> None:
        raise HTTPException(503)

    makes = [release(route(folder, **said), options)] * 2
    checked = release(route(folder, Depends(user), **said), options), release(route(folder, Depends(broken)), options)
    async with replicas(redis_server, *makes, *checked) as ((old, cache), (same, _), (new, _), (down, _)):
        began = time.monotonic()
        await filled(old, cache, "/in/page")
        await eventually(lambda: time.monotonic() > began + 1.1, "the end of the lifetime")
        assert (await get(down)).status_code == 503
        assert (await get(new)).status_code == 403
        stale = await get(same)
        assert stale.cache is not None
        assert (stale.status_code, stale.cache.hit) == (200, True)


async def test_those_who_wait_for_each_other_get_none_of_it(redis_server: Valkey, folder: Path) -> None:
    """A burst on a release that checks, where the page is in L2."""
    makes = release(route(folder), RULED), release(route(folder, Depends(user)), RULED)
    async with replicas(redis_server, *makes) as ((old, cache), (new, _)):
        await filled(old, cache, "/in/page")
        answers = await asyncio.gather(*(get(new) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {403}


@pytest.mark.parametrize(
    ("old", "new", "options"),
    [
        (route, route, RULED),
        (route, route, OVERRIDDEN),
        (plain, plain, True),
        (plain, plain, DEFAULT),
        (by_starlette, by_starlette, RULED),
        (plain, route, RULED),
    ],
)
async def test_what_the_other_release_would_store_as_well_is_shared(
    redis_server: Valkey, folder: Path, old: Any, new: Any, options: Any
) -> None:
    """Files stay files, and a rule holds for a route that asks nobody."""
    gold: dict[str, Any] = {"headers": KEY} if old is by_starlette else {}
    makes = release(old(folder), options), release(new(folder), options)
    async with replicas(redis_server, *makes) as ((one, cache), (two, _)):
        await filled(one, cache, "/in/page", **gold)
        assert await found(two, "/in/page", **gold)
        assert (await get(two, method="HEAD", **gold)).status_code == 200


async def test_what_a_response_says_itself_is_shared_as_before(redis_server: Valkey, folder: Path) -> None:
    """A lifetime of its own is the app's word, whatever asks who is calling."""
    said = {"cache-control": "max-age=60"}
    makes = release(route(folder, **said), RULED), release(route(folder, Depends(user), **said), RULED)
    async with replicas(redis_server, *makes) as ((old, cache), (new, _)):
        await filled(old, cache, "/in/page")
        assert await found(new, "/in/page")


async def test_a_page_that_is_refused_is_replaced(redis_server: Valkey, folder: Path) -> None:
    """The release that checks stores what its own route says, and finds that again."""
    said = {"cache-control": "max-age=60"}
    checked = release(route(folder, Depends(user), **said), RULED)
    async with replicas(redis_server, release(route(folder), RULED), checked, checked) as (
        (old, cache),
        (new, own),
        (other, _),
    ):
        await filled(old, cache, "/in/page")
        await filled(new, own, "/in/page", headers=KEY)
        assert await found(other, "/in/page", headers=KEY)


@pytest.mark.parametrize("rules", [[("/in/*", 300)], [("/in/*", HeaderRule(300, override=True))]], ids=str)
async def test_a_rule_by_which_one_query_stands_for_others_hands_out_none_of_it(
    redis_server: Valkey, folder: Path, rules: Any
) -> None:
    """The release that checks has heard of `No-Vary-Search` by a page of its own."""
    said, options = {"no-vary-search": "params"}, HeaderOptions(rules=rules)

    def build(app: FastAPI) -> None:
        @app.get("/in/{name}", dependencies=[Depends(user)])
        def page(name: str, lasts: int = 0) -> Response:
            more = {"cache-control": f"max-age={lasts}"} if lasts else {}
            return FileResponse(folder / name, headers={**said, **more})

    async with replicas(redis_server, release(route(folder, **said), options), release(build, options)) as (
        (old, cache),
        (new, own),
    ):
        await filled(new, own, "/in/page?lasts=1", headers=KEY)
        began = time.monotonic()
        await filled(old, cache, "/in/page?a=1")
        await eventually(lambda: time.monotonic() > began + 1.1, "the end of the new release's own page")
        assert (await get(new, "/in/page?a=2")).status_code == 403
