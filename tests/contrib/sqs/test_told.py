"""What a source tells: statistics, metrics, spans that link to the producer's trace, and its life with an app's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.trace import SpanContext, TraceFlags

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.contrib.sqs import SQSSource
from tests.contrib.sqs.cloud import REGION, SOON, Cloud
from tests.contrib.sqs.fed import fed
from tests.helpers.fleet import eventually
from tests.helpers.life import LifespanByHand
from tests.helpers.telemetry import Recorded, linked_to
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("way", ["sqs", "sns", "raw sns", "x-ray"])
async def test_the_span_of_a_purge_links_to_the_producers_trace(redis_server: Valkey, cloud: Cloud, way: str) -> None:
    """`traceparent` in the attributes of SQS or of SNS, or an X-Ray header: the purge's own trace links to it."""
    queue, recorded = cloud.queue(), Recorded()
    fields = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "shop=1"}
    async with fed(redis_server.url, queue, cache=recorded.providers) as shop:
        match way:
            case "sqs":
                cloud.send(queue, {"tags": ["a"]}, fields)
            case "x-ray":
                header = {
                    "DataType": "String",
                    "StringValue": f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1",
                }
                cloud.send(queue, {"tags": ["a"]}, MessageSystemAttributes={"AWSTraceHeader": header})
            case _:
                raw = {"RawMessageDelivery": "true"} if way == "raw sns" else {}
                cloud.publish(cloud.topic(queue, **raw), {"tags": ["a"]}, fields)
        await shop.done()
    span = recorded.one("cacheinval.invalidate")
    assert span.parent is None
    assert linked_to(span) == [(int(TRACE, 16), int(SPAN, 16))]
    link = span.links[0].context
    assert isinstance(link, SpanContext)
    assert link.trace_flags == TraceFlags.SAMPLED
    assert link.trace_state.get("shop") == (None if way == "x-ray" else "1")


async def test_no_span_without_anybody_who_records_and_none_of_the_attributes(
    redis_server: Valkey, cloud: Cloud
) -> None:
    """What a message holds is in no attribute of a span, and a broken `traceparent` is no link."""
    queue, recorded = cloud.queue(), Recorded()
    async with fed(redis_server.url, queue, cache=recorded.providers) as shop:
        cloud.send(queue, {"tags": ["card:4111"]}, {"traceparent": "nonsense"})
        await shop.done()
    span = recorded.one("cacheinval.invalidate")
    assert linked_to(span) == []
    assert "4111" not in repr([dict(each.attributes or {}) for each in recorded.spans()])


async def test_the_metrics_and_statistics_agree(redis_server: Valkey, cloud: Cloud) -> None:
    """Received, done, refused and failed, in touch or not."""
    queue, recorded = cloud.queue(), Recorded()
    async with fed(redis_server.url, queue, name="prices", cache=recorded.providers) as shop:
        for body in ({"tags": ["a"]}, {"tags": ["b"]}, "nonsense"):
            cloud.send(queue, body)
        await shop.done(2)
        await eventually(lambda: shop.state.refused and not shop.state.waiting, "the third")
        events = recorded.values("cacheinval.source.events", "cacheinval.source", "cacheinval.event")
        assert events == {
            ("prices", "received"): shop.state.received,
            ("prices", "done"): shop.state.done,
            ("prices", "refused"): shop.state.refused,
            ("prices", "failed"): shop.state.failures,
        }
        assert (shop.state.received, shop.state.done, shop.state.refused, shop.state.failures) == (3, 2, 1, 0)
        assert recorded.values("cacheinval.source.connected", "cacheinval.source")["prices",] == 1


async def test_the_length_of_the_queue_is_told_and_asked_for_now_and_then(cloud: Cloud) -> None:
    """At the start, and every half minute, not at each poll."""
    queue = cloud.queue()
    for number in range(12):
        cloud.send(queue, {"tags": [str(number)]})
    gate = asyncio.Event()

    async def then(receipt: Any) -> None:
        await gate.wait()

    from fastapi_cacheinval.testing import FakeClock

    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    source = SQSSource(cache, queue, then=then, batch=5, region=REGION, wait_seconds=1, visibility_timeout=40_000)
    cache.attach(source)
    async with cache:
        await eventually(lambda: source.state().waiting == 5, "a batch in hand")
        assert source.state().lag == 12
        clock.tick(29)
        await asyncio.sleep(0.1)
        assert source.state().lag == 12
        clock.tick(2)
        await eventually(lambda: source.state().lag == 7, "another look")
        gate.set()
        await eventually(lambda: source.state().done == 12, "all of them")
        assert source.state().lag == 7
        clock.tick(31)
        await eventually(lambda: source.state().lag == 0, "an empty queue")


async def test_it_lives_as_long_as_the_app(redis_server: Valkey, cloud: Cloud) -> None:
    """Attached, it begins with the app's lifespan and ends with it."""
    queue = cloud.queue()
    cache = HTTPCache.from_url(redis_server.url, secret="a secret that all replicas share")
    source = SQSSource(cache, queue, **SOON)
    cache.attach(source)
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    lifespan = LifespanByHand(app)
    assert not source.state().running
    await lifespan.tell("startup")
    cloud.send(queue, {"tags": ["a"]})
    await eventually(lambda: source.state().done, "the message")
    await lifespan.tell("shutdown")
    assert not source.state().running
    assert cache.statistics().sources["sqs"] == source.state()


async def test_two_queues_and_two_sources(redis_server: Valkey, cloud: Cloud) -> None:
    """Each has a state of its own under its name."""
    one, two = cloud.queue(), cloud.queue()
    cache = HTTPCache.from_url(redis_server.url, secret="a secret that all replicas share")
    for name, queue in (("prices", one), ("stock", two)):
        cache.attach(SQSSource(cache, queue, name=name, **SOON))
    async with cache:
        cloud.send(one, {"tags": ["a"]})
        cloud.send(two, "nonsense")

        def counts() -> Any:
            sources: Any = cache.statistics().sources
            return [(sources[name].done, sources[name].refused) for name in ("prices", "stock")]

        await eventually(lambda: counts() == [(1, 0), (0, 1)], "both")
