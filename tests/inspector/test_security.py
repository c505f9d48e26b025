"""What every answer of the inspector says to browsers and caches, and what none of them holds."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HeaderRule, HTTPCache, cached
from fastapi_cacheinval.inspector import Inspector
from tests.helpers.http import ask, until
from tests.inspector.inspected import LOCAL, Inspected, events_of

pytestmark = pytest.mark.anyio

PATHS = [
    "/",
    "/static/inspector.js",
    "/static/inspector.css",
    "/static/icon.svg",
    "/static/index.html",
    "/static/../app.py",
    "/static/%2e%2e/app.py",
    "/api/state",
    "/api/routes",
    "/api/contents",
    "/api/search?q=items",
    "/api/search",
    "/api/purge",
    "/api/nothing",
]
STATIC = files("fastapi_cacheinval.inspector").joinpath("static")


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_the_fields(path: str) -> None:
    """Whatever its status: no inline script or style, no frame, no guess of a type, no store."""
    answer = await Inspected().get(path)
    parts = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    policy = {name: value for name, _, value in parts}
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.headers["vary"] == "*"


async def test_the_stream_has_the_fields() -> None:
    """The stream of events is no exception, and asks proxies not to hold it back."""
    stream = Inspected().watch()
    await until(lambda: stream.started, "the stream")
    stream.go_away()
    answer = await stream.answer()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/",
        "/static/index.html",
        "/static/inspector.js/",
        "//",
        "/api",
    ],
)
async def test_there_are_no_files_but_those_of_the_page(path: str) -> None:
    """A path leads to a name in a table, not to a folder."""
    assert (await Inspected().get(path)).status_code == 404


def test_the_page_runs_nothing_inline_and_asks_nobody_else() -> None:
    """No script, style or handler stands in the markup, and no URL leads out of the page."""
    text = STATIC.joinpath("index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*src=)", text) == []
    assert re.findall(r"<style| style=| on[a-z]+=", text) == []
    for name in ("index.html", "inspector.css", "inspector.js"):
        addresses = set(re.findall(r"https?://[^\s\"')]+", STATIC.joinpath(name).read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
    assert re.findall(r'(?:src|href)="(?!#|static/)[^"]*"', text) == []


def test_the_script_makes_no_markup_of_text() -> None:
    """None of the ways by which text becomes markup or code is in the script."""
    script = STATIC.joinpath("inspector.js").read_text("utf-8")
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "srcdoc",
        "DOMParser",
        "javascript:",
    ):
        assert way not in script


async def test_every_id_that_the_script_looks_for_is_in_the_page() -> None:
    """The two files fit each other."""
    script, text = (STATIC.joinpath(name).read_text("utf-8") for name in ("inspector.js", "index.html"))
    wanted = set(re.findall(r'(?:find|write|fill)\("([a-z-]+)"', script))
    assert len(wanted) > 30
    assert wanted <= set(re.findall(r'id="([a-z-]+)"', text))


# -- never stored -----------------------------------------------------------------------------------

OVERRIDE = HeaderOptions(rules=[("*", HeaderRule(3600, override=True))])


@pytest.mark.parametrize(
    "options", [{}, {"honour_headers": True}, {"honour_headers": OVERRIDE}], ids=["policies", "headers", "override"]
)
async def test_the_cache_does_not_keep_its_own_inspector(options: dict[str, Any]) -> None:
    """In no mode is an answer of the inspector stored, not even by a rule that overrides `no-store` everywhere."""
    inspected = Inspected(shop={"middleware": options})
    for path in PATHS:
        for _ in range(2):
            answer = await inspected.get(path)
            assert not (answer.cache and answer.cache.hit), path
    assert inspected.shop.cache.statistics().responses == 0


@pytest.mark.parametrize(
    "options", [{}, {"honour_headers": True}, {"honour_headers": OVERRIDE}], ids=["policies", "headers", "override"]
)
async def test_two_pages_have_a_stream_each(options: dict[str, Any]) -> None:
    """No stream waits for another to end, in any mode: they are not one forward."""
    inspected = Inspected(shop={"middleware": options})
    streams = [inspected.watch() for _ in range(3)]
    await until(lambda: all(events_of(stream) for stream in streams), "all streams")
    for stream in streams:
        stream.go_away()
        await stream.answer()


class PassedOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize(
    "layer", [Middleware(GZipMiddleware, minimum_size=1), Middleware(PassedOn)], ids=["gzip", "a function"]
)
@pytest.mark.parametrize("place", ["inside", "outside"])
async def test_a_stream_passes_other_middleware(layer: Middleware, place: str) -> None:
    """Events come one by one through what packs or passes on, and the stream ends with its client."""
    inspected = Inspected()
    inspected.shop.app.user_middleware.insert(0 if place == "outside" else 1, layer)
    stream = inspected.watch(headers={"accept-encoding": "gzip"})
    await until(lambda: stream.body, "the first event")
    stream.go_away()
    await stream.answer()


# -- nothing of what is secret ----------------------------------------------------------------------


async def member(x_member: str = Header()) -> str:
    return x_member


async def test_nothing_of_a_body_a_field_or_a_partition_is_shown() -> None:
    """Of a response that belongs to one caller the page shows the path and the tags, and none of its contents."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.mount("/_cache", Inspector(cache, debug=True))

    @app.get("/basket", dependencies=[cached(ttl=60, tags=["baskets"], partition_by=member)])
    async def basket(who: Annotated[str, Depends(member)], coupon: str = "") -> dict[str, str]:
        return {"owner": who, "body": "secret-of-the-body"}

    answer = await ask(
        app, "/basket?coupon=secret-of-the-query", headers={"x-member": "secret-of-the-partition"}, **LOCAL
    )
    assert b"secret-of-the-body" in answer.body
    pages = ("/api/state", "/api/routes", "/api/contents", "/api/search?q=basket", "/api/search?q=secret", "/")
    shown = b"".join([(await ask(app, f"/_cache{path}", **LOCAL)).body for path in pages])
    assert b"baskets" in shown
    assert b"/basket" in shown
    assert b"secret" not in shown
