"""What spans say of the shared tier, and of Redis in trouble."""

from __future__ import annotations

import pytest
from opentelemetry.trace import StatusCode

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.http import Answer
from tests.helpers.telemetry import Recorded, attributes_of
from tests.servers import Valkey
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio


async def told(node: Node, recorded: Recorded, **more: str) -> tuple[Answer, str]:
    """An answer, and what its span says of it in short; the two agree."""
    recorded.forget()
    answer = await node.ask(**more)
    said = attributes_of(recorded.one("cacheinval.lookup"))
    assert answer.cache is not None
    assert said.get("reason") == (answer.cache.detail or answer.cache.fwd)
    assert answer.headers.get("age") == (str(said["age"]) if "age" in said else None)
    return answer, " ".join(str(said[name]) for name in ("result", "tier", "reason") if name in said)


async def test_spans_and_cache_status_agree_through_an_outage(redis_server: Valkey) -> None:
    """The shared tier, Redis away, its purges queued, and Redis back: what is said is the same on both sides."""
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
        assert recorded.values("cacheinval.invalidations", "event")[("queued",)] == 1
        redis_server.restart()
        await a.in_touch()
        await eventually(
            lambda: recorded.values("cacheinval.invalidations", "event").get(("published",)) == 1, "the purge's number"
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
