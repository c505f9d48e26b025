"""Random requests to one cache: each is answered with what the same request is answered without it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.http import ask

# Few of each, so that two requests of one draw often differ in one part alone.
ROOTS = st.sampled_from(["", "/", "/a", "/a/", "/a/b", "/A"])
PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "a b", "é", "%2F", ""]), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
SENT = st.sampled_from([None, b"", b"/a-b", b"/a%2Db", b"/a/b", b"/a%2Fb", b"/a?b"])
REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "path": PATHS,
            "root_path": ROOTS,
            "raw_path": SENT,
            "host": st.sampled_from(["one.test", "two.test", "one.test:80", None]),
            "scheme": st.sampled_from(["http", "https"]),
            "query_string": st.sampled_from([b"", b"a=1", b"a=1&b=2", b"a=1%26b=2", b"b=2&a=1", b"c=3"]),
        }
    ),
    min_size=2,
    max_size=12,
)
SEEN = ("path", "root_path", "raw_path", "scheme", "query_string")


def seen(scope: Any) -> dict[str, str]:
    """All of a request that an app may answer by."""
    host = next((value for name, value in scope["headers"] if name == b"host"), None)
    return {**{name: repr(scope.get(name)) for name in SEEN}, "host": repr(host)}


async def by_headers(scope: Any, receive: Any, send: Any) -> None:
    """Says all of the request, for everybody."""
    await JSONResponse(seen(scope), headers={"cache-control": "public, max-age=60"})(scope, receive, send)


def by_policy() -> FastAPI:
    """One route for every path, which is handed the request; and one below it that sees the path alone."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)

    @app.get("/{rest:path}", dependencies=[cached(ttl=60, shared=True)])
    async def everything(rest: str, request: Request) -> Any:
        return {"rest": rest, **seen(request.scope)}

    return app


def by_parameters() -> FastAPI:
    """What a handler sees that is not handed the request."""
    app = FastAPI(openapi_url=None)

    @app.get("/{rest:path}", dependencies=[cached(ttl=60)])
    async def some(rest: str, a: str = "", b: str = "") -> Any:
        return {"rest": rest, "a": a, "b": b}

    return app


async def compared(plain: Any, requests: list[dict[str, Any]], **options: Any) -> None:
    """Ask each request of the cached app, twice around, and of the bare one."""
    cache = HTTPCache()
    app = CacheMiddleware(plain, cache, **options)
    for _ in range(2):
        for request in requests:
            got, expected = await ask(app, **request), await ask(plain, **request)
            assert got.status_code == expected.status_code
            assert got.body == expected.body
    await cache.stop()


@pytest.mark.parametrize(
    ("plain", "options"),
    [
        (by_headers, {"honour_headers": True}),
        (by_policy(), {}),
        (by_policy(), {"front": True}),
        (by_policy(), {"honour_headers": True}),
        (by_parameters(), {}),
        (by_parameters(), {"front": False}),
    ],
)
@settings(max_examples=50, deadline=None)
@given(requests=REQUESTS)
def test_no_request_is_answered_with_anothers_response(
    plain: Any, options: Any, requests: list[dict[str, Any]]
) -> None:
    """Whatever of the request the app answers by, in both modes: spellings, root paths, hosts, schemes, queries."""
    asyncio.run(compared(plain, requests, **options))
