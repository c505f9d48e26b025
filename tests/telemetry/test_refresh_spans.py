"""What the span of a background refresh says when the refresh does not end by itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from fastapi_cacheinval import CachePolicy, cached
from tests.helpers.http import until
from tests.helpers.telemetry import Watched, attributes_of, identity_of

pytestmark = pytest.mark.anyio

POLICY = CachePolicy(ttl=60, stale_while_revalidate=600)


class Broken:
    """An app whose first answer is stored, and whose refresh waits or raises."""

    def __init__(self, *, waits: bool, **options: Any) -> None:
        self.shop = shop = Watched(**options)
        self.cancelled = False

        @shop.app.get("/", dependencies=[cached(POLICY)])
        async def read() -> int:
            if shop.count() == 1:
                return 1
            if not waits:
                raise RuntimeError
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return 2

    async def begin(self) -> None:
        """Have the refresh begin."""
        await self.shop.ask()
        self.shop.clock.tick(61)
        self.shop.recorded.forget()
        await self.shop.ask()


async def test_a_refresh_that_times_out_says_so() -> None:
    """Its span has the outcome `timeout`, the same as the metric."""
    app = Broken(waits=True, refresh_timeout=5)
    await app.begin()
    await until(lambda: app.shop.calls == 2)
    app.shop.clock.tick(6)
    span = await app.shop.span_of_refresh()
    assert attributes_of(span) == {"outcome": "timeout"}
    assert app.cancelled
    await app.shop.refreshed()
    assert app.shop.recorded.values("cacheinval.refreshes", "cacheinval.outcome") == {("timeout",): 1}


async def test_a_refresh_that_is_cancelled_at_the_stop_says_so() -> None:
    """The end of the cache cancels refreshes: their spans have the outcome `cancelled`."""
    app = Broken(waits=True)
    await app.begin()
    await until(lambda: app.shop.calls == 2)
    await app.shop.cache.stop()
    assert attributes_of(app.shop.recorded.one("cacheinval.refresh")) == {"outcome": "cancelled"}


async def test_a_refresh_that_raises_is_logged_inside_its_span() -> None:
    """Its span is an error with the outcome `failed`, and is current where its log record is made."""
    app = Broken(waits=False)
    seen: list[tuple[str, Any]] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            context = trace.get_current_span().get_span_context()
            seen.append((record.getMessage(), (context.trace_id, context.span_id)))

    logger = logging.getLogger("fastapi_cacheinval.refresh")
    handler = Heard()
    logger.addHandler(handler)
    try:
        await app.begin()
        span = await app.shop.span_of_refresh()
    finally:
        logger.removeHandler(handler)
    assert attributes_of(span) == {"outcome": "failed"}
    assert span.status.status_code is StatusCode.ERROR
    assert seen == [("a background refresh failed", identity_of(span))]
