"""Making a hit again in the background, and comparing what the app answers with what is stored.

Such a request goes forward as if the cache were off: it takes no lock, stores nothing, purges nothing and is counted
as no request. It carries its caller's own fields.
"""

from __future__ import annotations

import logging
import zlib
from typing import Any

from starlette.types import Message, Scope

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.events import digest_of, route_label
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.clocks import within
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.incoming import Entered, Incoming, RefreshOrder
from fastapi_cacheinval.framework.receiving import nobody
from fastapi_cacheinval.framework.refresh import made_again
from fastapi_cacheinval.grammar.fields import RawHeaders, first, lower_names

__all__ = ["order_shadow"]

logger = logging.getLogger("fastapi_cacheinval.shadow")

_DROPPED = CONDITIONAL_FIELDS | {b"range", b"if-range"}
# What says how a body is to be read; the rest may tell the time, or who answered.
_COMPARED = (b"content-type", b"content-encoding", b"content-language", b"location")


class _Answer:
    """Takes what the app answers: no more of its body than could be stored."""

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


def order_shadow(
    app_context: AppContext, scope: Scope, headers: list[tuple[bytes, bytes]], stored: StoredResponse
) -> None:
    """Make a request again in the background that was answered with this response, if it is drawn."""
    cache, engine = app_context.cache, app_context.engine
    if not cache.running or not cache.shadow.begins():
        return
    shadow, runtime = cache.shadow, cache.runtime
    changes = engine.replica.changes
    again = made_again(Entered(scope, headers, engine.replica.stamp(engine.now()), None, None), _DROPPED)

    async def run() -> None:
        outcome = "failed"
        try:
            answer = await _answered(app_context, runtime, again)
            if engine.replica.changes != changes or not cache.enabled:
                # It may read what has been written meanwhile.
                outcome = "skipped"
            elif answer is not None and answer.status < 500:
                outcome = "equal" if _equal(stored, answer) else "different"
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


async def _answered(app_context: AppContext, runtime: Runtime, scope: Scope) -> _Answer | None:
    """What the app answers without the cache; None where that takes too long."""
    cache = app_context.cache
    answer = _Answer(cache.settings.max_body_bytes)
    incoming = Incoming(
        app_context, runtime, scope, nobody, answer, closed="shadow", order=RefreshOrder(None, forced=False)
    )
    work: Any = runtime.loop.create_task(_read(app_context, incoming))
    try:
        in_time = await within(cache.clock, work, cache.settings.refresh_timeout)
    finally:
        if not work.done():
            work.cancel()
    if in_time:
        work.result()
    return answer if in_time and answer.complete else None


async def _read(app_context: AppContext, incoming: Incoming) -> None:
    await app_context.mode.read(incoming)


def _equal(stored: StoredResponse, answer: _Answer) -> bool:
    """Whether both say the same to a client."""
    if stored.status != answer.status:
        return False
    if any(first(stored.headers, name) != first(answer.headers, name) for name in _COMPARED):
        return False
    body = bytes(answer.body)
    return body == stored.body or (
        first(stored.headers, b"content-encoding") == b"gzip" and _unzipped(body) == _unzipped(stored.body)
    )


def _unzipped(body: bytes) -> bytes | None:
    """What was compressed: the same is not compressed to the same bytes, which hold the time. None for what is not."""
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = reader.decompress(body, 64 * len(body) + 1024)
    except zlib.error:
        return None
    return text if reader.eof else None
