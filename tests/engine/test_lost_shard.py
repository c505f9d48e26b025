"""A whole shard of a cluster is gone: what lives on the others goes on as before, and what lived there costs little."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Generator
from typing import Any

import pytest

from fastapi_cacheinval.testing import assert_hit
from tests.engine.calls import details, read
from tests.helpers.fleet import Node, eventually, fleet
from tests.servers import Cluster, Valkey, cluster

pytestmark = pytest.mark.anyio

TIMEOUT = 0.5
OPTIONS: dict[str, Any] = {"staleness_bound": 3.0, "redis_timeout": TIMEOUT}
KEYS = range(40)


@pytest.fixture(scope="module")
def whole() -> Generator[Cluster]:
    """A cluster that answers for the shards that are there."""
    with cluster(full_coverage=False) as made:
        yield made


def other_shard(made: Cluster) -> Valkey:
    """A node that has no part of the log."""
    return made.other_than(made.owner(Cluster.slot_of("{cacheinval}:state")))


def url_of(made: Cluster) -> str:
    """A URL that names all nodes: any of them may be gone when a replica learns of the others."""
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in made.nodes)}"


async def idle(node: Node) -> None:
    """Wait until nothing is on its way to L2 any more."""
    (runtime,) = node.cache._core.runtimes.values()
    await eventually(lambda: not runtime._owned, "the end of all writes")


async def timed(node: Node, path: str, **more: Any) -> tuple[Any, float]:
    """An answer, and the seconds that it took."""
    began = time.monotonic()
    answer = await node.ask(path, **more)
    return answer, time.monotonic() - began


# redis-py 5 lets go of a node that is gone with its connections open; the test collects them itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("how", ["silent", "killed"])
async def test_a_shard_that_is_gone_slows_nothing_on_the_others(whole: Cluster, how: str, caplog: Any) -> None:
    """The log is in touch throughout, purges are done, other keys are shared; the shard's own keys say what is amiss."""
    lost = other_shard(whole)
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with fleet(url_of(whole), 2, **OPTIONS) as (a, b):
            await asyncio.gather(a.in_touch(), b.in_touch())
            await read(a, KEYS)
            await idle(a)
            (lost.pause if how == "silent" else lost.kill)()
            try:
                # Found out, at most two calls' time later.
                first = await read(b, KEYS)
                gone = [number for number, answer in enumerate(first) if answer.cache and answer.cache.detail]
                assert details(first) == {None: len(KEYS) - len(gone), "l2-unavailable": len(gone)}
                assert 0 < len(gone) < len(KEYS)
                slow: list[float] = []
                deadline = time.monotonic() + 4
                number = 100
                while time.monotonic() < deadline:
                    answer, seconds = await timed(b, f"/items/{number}")
                    number += 1
                    assert answer.cache is not None
                    if answer.cache.detail is None:
                        assert seconds < TIMEOUT
                    else:
                        assert answer.cache.detail == "l2-unavailable"
                        slow.append(seconds)
                    _, seconds = await timed(a, f"/items/{number % 40}", method="PUT")
                    assert seconds < TIMEOUT
                    await asyncio.sleep(0.01)
                assert max(slow) < 3 * TIMEOUT + 0.5
                # One call in a second looks whether it is back.
                assert sum(seconds > TIMEOUT for seconds in slow) <= 4
                assert a.statistics.connected
                assert b.statistics.connected
            finally:
                lost.revive()
            await asyncio.to_thread(whole.wait_until_ok)
            await eventually_shared(a, b)
        gc.collect()
    assert [record for record in caplog.records if record.name.startswith("fastapi_cacheinval")] == []


async def eventually_shared(a: Node, b: Node) -> None:
    """What one fills the other finds, whichever shard it is on."""
    deadline = time.monotonic() + 10
    keys = range(1000, 1012)
    while details([*await read(a, keys), *await read(b, range(keys.stop, keys.stop + 12))]) != {None: 24}:
        assert time.monotonic() < deadline
        keys = range(keys.stop + 12, keys.stop + 24)
        await asyncio.sleep(0.1)
    keys = range(5000, 5012)
    await read(a, keys)
    await idle(a)
    for answer in await read(b, keys):
        assert_hit(answer)
