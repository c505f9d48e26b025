"""What a mutation's answer says of a purge that is late, queued, or both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, invalidates
from tests.helpers.mutations import ask, begin, until

pytestmark = pytest.mark.anyio

# Nobody listens there, and nobody without privileges can.
NOWHERE = "redis://127.0.0.1:1"


async def test_an_answer_before_its_commit_says_so_even_where_the_log_is_out_of_reach() -> None:
    """`disconnected` would promise that this replica is not behind the write, and it still is: the commit is to come."""
    may_commit = asyncio.Event()

    async def session() -> AsyncIterator[None]:
        yield
        await may_commit.wait()

    committing: Any = Depends(session)
    app = FastAPI()
    cache = HTTPCache.from_url(NOWHERE)
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.put("/streamed", dependencies=[invalidates("price")], response_model=None)
    async def stream(opened: None = committing) -> StreamingResponse:
        return StreamingResponse(iter([b"x"]))

    @app.put("/held", dependencies=[invalidates("price")])
    async def hold(opened: None = committing) -> str:
        return "x"

    async with cache:
        late = begin(app, "PUT", "/streamed")
        await until(lambda: late.started)
        may_commit.set()
        answer = await late.answer()
        assert (answer.purge, answer.headers["cache-status"]) == ("queued", "cacheinval; fwd=method; detail=late-purge")
        answer = await ask(app, "PUT", "/held")
        assert (answer.purge, answer.headers["cache-status"]) == (
            "queued",
            "cacheinval; fwd=method; detail=disconnected",
        )
        assert cache.statistics().queue_length == 3
