"""Making a hit again in the background, and comparing what the app answers with what is stored.

Such a request is made beside a client's: by the app as if the cache were off, or by what is stored alone. It takes no
lock, stores nothing, purges nothing and is counted as no request. It carries its caller's own fields.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.types import Message, Scope

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.events import digest_of
from fastapi_cacheinval.core.statistics import route_label
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.engine.clocks import within
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.incoming import Entered, Incoming, RefreshOrder
from fastapi_cacheinval.framework.messages import MessageOrder
from fastapi_cacheinval.framework.receiving import nobody
from fastapi_cacheinval.framework.refresh import made_again
from fastapi_cacheinval.grammar.fields import RawHeaders, first, lower_names

__all__ = ["Answered", "Heard", "answer_of_app", "answer_stored", "order_shadow", "plain_again", "says_the_same"]

logger = logging.getLogger("fastapi_cacheinval.shadow")

# What says how a body is to be read; the rest may tell the time, or who answered.
_COMPARED = (b"content-type", b"content-encoding", b"content-language", b"location")
_ONLY_STORED = (b"cache-control", b"only-if-cached")


class Heard:
    """Takes what is answered: no more of its body than could be stored."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._order = MessageOrder()
        self.status = 0
        self.headers: RawHeaders = []
        self.body = bytearray()
        self.complete = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        if not self._order.take(message):
            return
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], lower_names(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            if len(self.body) <= self._most:
                self.body += message.get("body", b"")
            self.complete = self._order.body_ended


def plain_again(scope: Mapping[str, Any], headers: list[tuple[bytes, bytes]], stamp: Stamp) -> Scope:
    """A request once more, as a plain GET without conditions and ranges."""
    return made_again(Entered(dict(scope), headers, stamp, None, None), CONDITIONAL_FIELDS)


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


def order_shadow(
    app_context: AppContext, scope: Scope, headers: list[tuple[bytes, bytes]], stored: StoredResponse
) -> None:
    """Make a request again in the background that was answered with this response, if it is drawn."""
    cache, engine = app_context.cache, app_context.engine
    if not cache.running or not cache.shadow.begins():
        return
    shadow, runtime = cache.shadow, cache.runtime
    changes = engine.replica.changes
    again = plain_again(scope, headers, engine.replica.stamp(engine.now()))

    async def run() -> None:
        outcome = "failed"
        try:
            answer = await answer_of_app(app_context, runtime, again)
            if engine.replica.changes != changes or not cache.enabled:
                # It may read what has been written meanwhile.
                outcome = "skipped"
            elif answer is not None and answer.status < 500:
                outcome = "equal" if says_the_same(stored, answer) else "different"
        except Exception:  # what the app raises, it raises to nobody
            logger.debug("a hit could not be made again", exc_info=True)
        finally:
            if shadow.ended(outcome, stored.route):
                logger.warning(
                    "%s answers otherwise than what is stored of it (key %s): it may depend on the caller or the time, "
                    "or has changed without a purge. Said once for each route.",
                    route_label(stored.route),
                    digest_of(stored.key),
                )

    runtime.own(run())
