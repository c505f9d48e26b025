"""A request made again beside a client's: by the app as if the cache were off, or by what is stored alone.

Neither takes a lock, stores anything, purges anything, or is counted as a request.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.types import Message, Scope

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.stored import Stamp
from fastapi_cacheinval.engine.clocks import within
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.incoming import Entered, Incoming, RefreshOrder
from fastapi_cacheinval.framework.receiving import nobody
from fastapi_cacheinval.framework.refresh import made_again
from fastapi_cacheinval.grammar.fields import RawHeaders, first, lower_names

__all__ = ["Answered", "Heard", "answer_of_app", "answer_stored", "plain_again", "says_the_same"]

_DROPPED = CONDITIONAL_FIELDS | {b"range", b"if-range"}
# What says how a body is to be read; the rest may tell the time, or who answered.
_COMPARED = (b"content-type", b"content-encoding", b"content-language", b"location")
_ONLY_STORED = (b"cache-control", b"only-if-cached")


class Heard:
    """Takes what is answered: no more of its body than could be stored."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.status = 0
        self.headers: RawHeaders = []
        self.body = bytearray()
        self.complete = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], lower_names(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            if len(self.body) <= self._most:
                self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)


def plain_again(scope: Mapping[str, Any], headers: list[tuple[bytes, bytes]], stamp: Stamp) -> Scope:
    """A request once more, as a plain GET without conditions and ranges."""
    return made_again(Entered(dict(scope), headers, stamp, None, None), _DROPPED)


async def answer_of_app(app_context: AppContext, runtime: Runtime, scope: Scope) -> Heard | None:
    """What the app answers without the cache; None where that takes too long. Raises what the app raises."""
    heard = Heard(app_context.cache.settings.max_body_bytes)
    order = RefreshOrder(None, forced=False)
    incoming = Incoming(app_context, runtime, scope, nobody, heard, closed="shadow", order=order)
    return await _read(app_context, runtime, incoming, heard)


async def answer_stored(app_context: AppContext, runtime: Runtime, scope: Scope) -> tuple[Heard, RefreshOrder] | None:
    """What the request would be answered with by its route's lookup, if nothing were to be made for it.

    The order says how that came: without something stored here it is a miss, and a 504 (RFC 9111 section 5.2.1.7).
    None where it takes too long.
    """
    heard = Heard(app_context.cache.settings.max_body_bytes)
    order = RefreshOrder(None, forced=False)
    asked = {**scope, "headers": [*(each for each in scope["headers"] if each[0] != _ONLY_STORED[0]), _ONLY_STORED]}
    incoming = Incoming(app_context, runtime, asked, nobody, heard, order=order)
    answered = await _read(app_context, runtime, incoming, heard)
    return None if answered is None else (answered, order)


async def _read(app_context: AppContext, runtime: Runtime, incoming: Incoming, heard: Heard) -> Heard | None:
    cache = app_context.cache

    async def read() -> None:
        await app_context.mode.read(incoming)

    work: Any = runtime.loop.create_task(read())
    try:
        in_time = await within(cache.clock, work, cache.settings.refresh_timeout)
    finally:
        if not work.done():
            work.cancel()
    if in_time:
        work.result()
    return heard if in_time and heard.complete else None


class Answered(Protocol):
    """A complete answer: one that is stored, or one that has been heard."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> RawHeaders: ...

    @property
    def body(self) -> bytes | bytearray: ...


def says_the_same(one: Answered, other: Answered) -> bool:
    """Whether two answers say the same to a client; what is compressed with gzip is compared unpacked."""
    if one.status != other.status:
        return False
    if any(first(one.headers, name) != first(other.headers, name) for name in _COMPARED):
        return False
    zipped = first(one.headers, b"content-encoding") == b"gzip"
    return one.body == other.body or (zipped and _unzipped(one.body) == _unzipped(other.body))


def _unzipped(body: bytes | bytearray) -> bytes | None:
    """What was compressed: the same is not compressed to the same bytes, which hold the time. None for what is not."""
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = reader.decompress(body, 64 * len(body) + 1024)
    except zlib.error:
        return None
    return text if reader.eof else None
