"""What spans say of L2, and of Redis in trouble."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.http import Answer
from tests.helpers.telemetry import Recorded, attributes_of
from tests.servers import Valkey, tcp_proxy
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio


async def told(node: Node, recorded: Recorded, **more: Any) -> tuple[Answer, str]:
    """An answer, and what its span says of it in short; the two agree."""
    recorded.forget()
    answer = await node.ask(**more)
    said = attributes_of(recorded.one("cacheinval.lookup"))
    assert answer.cache is not None
    assert (said.get("reason"), said.get("detail")) == (answer.cache.fwd, answer.cache.detail)
    assert answer.headers.get("age") == (str(said["age"]) if "age" in said else None)
    told = (said["result"], said.get("tier"), said.get("detail") or said.get("reason"))
    return answer, " ".join(str(each) for each in told if each is not None)


async def test_spans_and_cache_status_agree_through_an_outage(redis_server: Valkey) -> None:
    """L2, Redis away, its purges queued, and Redis back: what is said is the same on both sides."""
    recorded = Recorded()
    async with fleet(redis_server.url, 2, staleness_bound=1.5, **recorded.providers) as (a, b):
        assert (await told(a, recorded))[1] == "miss uri-miss"
        await a.written()
        assert (await told(b, recorded))[1] == "hit l2"
        assert (await told(b, recorded))[1] == "hit l1"
        redis_server.kill()
        await a.out_of_touch()
        assert (await told(a, recorded, path="/items/b"))[1] == "miss disconnected"
        answer, said = await told(a, recorded, method="PUT")
        assert (answer.headers["cacheinval-purge"], said) == ("queued", "bypass disconnected")
        await eventually(lambda: recorded.values("cacheinval.queue.length") == {(): 1}, "the queue's gauge")
        assert recorded.values("cacheinval.lease.remaining") == {(): 0}
        assert recorded.values("cacheinval.invalidations", "cacheinval.event")[("queued",)] == 1
        redis_server.restart()
        await a.in_touch()
        await eventually(
            lambda: recorded.values("cacheinval.invalidations", "cacheinval.event").get(("published",)) == 1,
            "the purge's number",
        )
        assert recorded.values("cacheinval.queue.length") == {(): 0}


async def test_a_purge_that_cannot_be_written_is_an_error_without_its_tags() -> None:
    """The span of a purge by hand that was not delivered has the error's type, and neither message nor tags."""
    recorded = Recorded()
    cache = HTTPCache.from_url(f"redis://127.0.0.1:{free_port()}", **recorded.providers)
    async with cache:
        with pytest.raises(PurgeNotDelivered):
            await cache.invalidate("private-tag")
    span = recorded.one("cacheinval.invalidate")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "PurgeNotDelivered"
    assert span.events == ()
    assert "private-tag" not in span.to_json()


async def test_the_apply_of_queued_purges_links_to_each_that_its_line_stands_for(redis_server: Valkey) -> None:
    """Two purges that waited for Redis share a line; where it is applied, both spans that purged are linked to."""
    recorded, elsewhere = Recorded(), Recorded()
    with tcp_proxy(redis_server.port) as proxy:
        # A alone is cut off: after a restart B could find the line in what was purged before it joined the new term.
        async with (
            fleet(proxy.url, 1, staleness_bound=1.5, **recorded.providers) as (a,),
            fleet(redis_server.url, 1, staleness_bound=1.5, **elsewhere.providers) as (b,),
        ):
            await b.in_touch()
            proxy.black_hole()
            await a.out_of_touch()
            await two_purges_that_wait(a)
            purges = {
                span.context.span_id for span in recorded.spans("cacheinval.invalidate") if span.context is not None
            }
            assert len(purges) == 2
            proxy.heal()
            await eventually(lambda: elsewhere.spans("cacheinval.apply"), "the apply")
            assert {link.context.span_id for link in elsewhere.one("cacheinval.apply").links} == purges


async def two_purges_that_wait(node: Node) -> None:
    """Both are queued."""
    for tag in ("one", "two"):
        with pytest.raises(PurgeNotDelivered):
            await node.cache.invalidate(tag)


async def test_spans_and_cache_status_agree_where_a_mutation_is_refused(redis_server: Valkey) -> None:
    """A mutation that is not begun, because it could not be purged, says so on both sides."""
    recorded = Recorded()
    options = {"staleness_bound": 1.5, "mutations_when_disconnected": "refuse", **recorded.providers}
    async with fleet(redis_server.url, 1, **options) as (a,):
        redis_server.kill()
        await a.out_of_touch()
        answer, said = await told(a, recorded, method="PUT")
        assert (answer.status_code, said) == (503, "bypass disconnected")


async def test_spans_and_cache_status_agree_where_a_token_is_ahead(redis_server: Valkey) -> None:
    """A read that could not wait for what its token names is answered by the app, and says so on both sides."""
    recorded = Recorded()
    options = {"staleness_bound": 3.0, "redis_timeout": 0.2, "read_your_writes": True, **recorded.providers}
    async with fleet(redis_server.url, 1, **options) as (a,):
        token = (await a.ask(method="PUT")).headers["cacheinval-token"]
        ahead = ".".join([*token.split(".")[:2], "999"])
        redis_server.pause()
        said = (await told(a, recorded, headers={"cacheinval-token": ahead}))[1]
        assert said == "bypass behind"
        redis_server.resume()
