"""A hit in the route lookup ends the request from inside its dependencies, and nothing inside takes it for an error."""

# No postponed annotations: the handlers name classes and callables of their own test.

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio


def who(x: Annotated[str, Header()] = "") -> str:
    return x


def shop_of(statuses: set[int]) -> Shop:
    """A page that is partitioned, so that every hit comes from the route lookup."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, partition_by=who, statuses=statuses)], status_code=203)
    async def read() -> str:
        shop.count()
        return "content"

    return shop


async def test_no_handler_of_the_author_sees_a_hit() -> None:
    """Not one for HTTPException, for Exception or for any status: each would answer in place of the cache."""
    shop = shop_of({203})
    seen: list[Any] = []

    async def take(request: Request, error: Exception) -> JSONResponse:
        seen.append(error)
        return JSONResponse({}, 418)

    for kind in (HTTPException, Exception, 203, 500, *range(400, 420)):
        shop.app.add_exception_handler(kind, take)
    first, second = await shop.ask(), await shop.ask()
    assert_hit(second)
    assert (second.status_code, second.body) == (203, first.body)
    assert (seen, shop.calls) == ([], 1)


async def test_a_layer_inside_that_logs_exceptions_sees_none() -> None:
    """Through BaseHTTPMiddleware too, whose task groups wrap what is no Exception; it sees the stored status."""
    shop = shop_of({203})
    seen: list[Any] = []

    async def logged(request: Request, call_next: Any) -> Any:
        try:
            response = await call_next(request)
        except BaseException as error:
            seen.append(error)
            raise
        seen.append(response.status_code)
        return response

    shop.inside(BaseHTTPMiddleware, dispatch=logged)
    await shop.ask()
    assert_hit(await shop.ask())
    assert seen == [203, 203]


async def test_a_yield_dependency_before_the_lookup_sees_an_http_exception() -> None:
    """As it may at any time, so what it would have committed on a hit is rolled back; it is in the documentation."""
    shop = Shop()
    seen: list[type[BaseException] | None] = []

    async def session(x: Annotated[str, Header()] = "") -> AsyncIterator[str]:
        try:
            yield x
        except BaseException as error:
            seen.append(type(error))
            raise
        else:
            seen.append(None)

    @shop.app.get("/", dependencies=[cached(ttl=60, guarded_by=Depends(session))])
    async def read() -> str:
        return "content"

    await shop.ask()
    assert_hit(await shop.ask())
    assert seen[0] is None
    assert seen[1] is not None
    assert issubclass(seen[1], HTTPException)


async def test_the_frameworks_own_spans_show_no_error() -> None:
    """Where the framework traces its dependencies itself, a hit leaves no span with an error status or an exception."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    shop = shop_of({203})
    telemetry: Any = getattr(shop.app, "_telemetry", None)
    if telemetry is not None:
        telemetry["tracer_provider"] = provider
    await shop.ask()
    exporter.clear()
    assert_hit(await shop.ask())
    spans = exporter.get_finished_spans()
    # Older releases of the framework have no spans of their own.
    assert bool(spans) == (telemetry is not None)
    assert [span.name for span in spans if span.status.status_code is StatusCode.ERROR] == []
    assert [event.name for span in spans for event in span.events if event.name == "exception"] == []
