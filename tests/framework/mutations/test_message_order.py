"""Messages that are no part of the response to an unsafe request are refused as without a cache, also while it is held."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, invalidates
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Answer
from tests.helpers.messages import END, ONE, SHAPES, START, STRAYS, Sends, Site, heard

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "raises"])
@pytest.mark.parametrize("stray", list(STRAYS))
@pytest.mark.parametrize("shape", list(SHAPES))
async def test_a_held_answer_is_refused_what_a_server_refuses(shape: str, stray: str, *, goes_on: bool) -> None:
    """It is released then, with its purge, so that the refusal comes where the app has sent the message."""
    messages = [*SHAPES[shape], STRAYS[stray]]
    bare = Site(messages, goes_on=goes_on)
    expected, _ = await heard(bare)
    site = Site(messages, goes_on=goes_on)

    async def session() -> AsyncIterator[None]:
        yield

    app = FastAPI()

    @app.put("/", dependencies=[invalidates("it"), Depends(session)])
    async def write() -> Response:
        return Sends(site)

    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    call, error = await heard(app, method="PUT")
    assert call.body == expected.body
    assert site.refused == bare.refused
    assert (error is None) == goes_on


@pytest.mark.parametrize("stray", list(STRAYS))
@pytest.mark.parametrize("at", [2, 3])
async def test_the_answer_to_a_post_is_kept_without_what_came_after_it(stray: str, at: int) -> None:
    """By headers a POST may be stored for GET (RFC 9110 section 9.3.3)."""
    start = {**START, "headers": [*START["headers"], (b"content-location", b"/")]}
    messages = [start, ONE, END]
    if at == 3 or STRAYS[stray]["type"] != "http.response.body":
        messages.insert(at, STRAYS[stray])
    site = Site(messages, goes_on=True)
    app = CacheMiddleware(site, cache=HTTPCache(), honour_headers=True)
    call, _ = await heard(app, method="POST")
    assert call.body == b"page"
    hit, _ = await heard(app)
    answer = Answer(hit.messages)
    assert_hit(answer)
    assert (answer.status_code, answer.body) == (200, b"page")
