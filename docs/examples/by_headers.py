"""Any ASGI app, cached by what its responses say."""

from __future__ import annotations

from typing import Any

import httpx

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.testing import assert_hit, assert_miss


async def site(scope: Any, receive: Any, send: Any) -> None:
    """A site without a framework; a reverse proxy written in ASGI looks the same from outside."""
    headers = [(b"cache-control", b"max-age=60"), (b"cache-tag", b"pages"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


app = CacheMiddleware(site, cache=HTTPCache(), honour_headers=True)


async def test_it_is_cached_by_its_headers() -> None:
    """The first request is forwarded, the second is not, and a purge of the tag ends that."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://site") as client:
        assert_miss(await client.get("/"))
        assert_hit(await client.get("/"))
        await app.cache.invalidate("pages")
        assert_miss(await client.get("/"))
