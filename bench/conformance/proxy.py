"""A transparent reverse proxy as an ASGI app, and the same with the cache in front.

`ORIGIN` in the environment is `host:port`. `bare` and the factories are what the run serves.
"""

from __future__ import annotations

import os
from typing import Any

from bench.conformance.upstream import Brokenness, Fields, Upstream
from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HTTPCache

__all__ = ["Proxy", "bare", "cached", "optional"]

# RFC 9110 section 7.6.1: of one connection, and so not of the next.
_CONNECTION_FIELDS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


def _passed_on(fields: Fields) -> Fields:
    named = {
        name.strip().lower() for key, value in fields if key == b"connection" for name in value.split(b",")
    } | _CONNECTION_FIELDS
    return [line for line in fields if line[0] not in named]


async def _request_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


class Proxy:
    """Passes requests and responses on, field lines and bytes as they are; 502 where there is no answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        body = await _request_body(receive)
        fields = [line for line in _passed_on(scope["headers"]) if line[0] != b"content-length"]
        query = scope["query_string"]
        target = scope["raw_path"].split(b"?")[0] + (b"?" + query if query else b"")
        try:
            async with Upstream(self._host, self._port) as upstream:
                await upstream.ask(scope["method"].encode(), target, fields, body)
                await self._answer(upstream, scope, send)
        except Brokenness:
            await send({"type": "http.response.start", "status": 502, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, upstream: Upstream, scope: Any, send: Any) -> None:
        head = await upstream.head()
        while 100 <= head.status < 200:
            if head.status == 103 and "http.response.early_hint" in scope.get("extensions", {}):
                links = [value for name, value in head.fields if name == b"link"]
                await send({"type": "http.response.early_hint", "links": links})
            head = await upstream.head()
        started = {"type": "http.response.start", "status": head.status, "headers": _passed_on(head.fields)}
        await send(started)
        try:
            async for chunk in upstream.body(head):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Brokenness as error:
            # The server must see an app that failed, or it would end the response as if it were whole.
            raise RuntimeError("the origin's body is broken") from error
        await send({"type": "http.response.body", "body": b""})


def _origin() -> tuple[str, int]:
    host, _, port = os.environ.get("ORIGIN", "127.0.0.1:8000").rpartition(":")
    return host, int(port)


bare = Proxy(*_origin())


def cached() -> CacheMiddleware:
    """The proxy behind the cache, with the default options."""
    return CacheMiddleware(bare, cache=HTTPCache(), honour_headers=True)


def optional() -> CacheMiddleware:
    """The same with what the defaults leave out: cookies stored, stale responses in place of failures."""
    options = HeaderOptions(set_cookie=True, stale_if_error=60)
    return CacheMiddleware(bare, cache=HTTPCache(), honour_headers=options)
