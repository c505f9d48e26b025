"""A worker that is killed between the purge and the commit has lost nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contrib.kafka.broker import Kafka
from tests.helpers.fleet import eventually, fleet
from tests.servers import Valkey
from tests.servers.child import Child

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]


@contextmanager
def worker(broker: Kafka, redis_server: Valkey, directory: Path, **environment: str) -> Generator[Child]:
    """A source that runs alone in a process."""
    child = Child(
        "worker",
        [sys.executable, "-m", "tests.contrib.kafka.worker"],
        directory,
        {
            "KAFKA": json.dumps(broker.config()),
            "TOPIC": broker.topic,
            "REDIS_URL": redis_server.url,
            **environment,
        },
        cwd=ROOT,
    )
    try:
        yield child
    finally:
        child.kill()


async def test_a_worker_killed_between_purge_and_commit_is_taken_over(
    redis_server: Valkey, broker: Kafka, tmp_path: Path
) -> None:
    """What it had purged and not committed comes again to the next, and so does what it had not come to."""
    hold = tmp_path / "hold"
    hold.touch()
    async with fleet(redis_server.url, 1) as (node,):
        await node.ask()
        with worker(broker, redis_server, tmp_path, HOLD=str(hold)) as first:
            broker.send("item:x", "item:a")
            await eventually(lambda: "purged item:x" in first.output, "the first purge")
            node.data.versions["a"] += 1
            await asyncio.to_thread(first.kill)
        assert await asyncio.to_thread(broker.committed) == (None, None)
        with worker(broker, redis_server, tmp_path) as second:
            await eventually(lambda: "purged item:a" in second.output, "the second purge")
            assert "purged item:x" in second.output
            await asyncio.to_thread(broker.wait_for_offset, 2)
        await eventually(lambda: node.statistics.applied >= 2, "the purge on the replica")
        assert '"version":1' in (await node.ask()).body.decode()


async def test_a_worker_is_killed_while_redis_is_away(redis_server: Valkey, broker: Kafka, tmp_path: Path) -> None:
    """The record is not committed before Redis has the purge, whoever dies meanwhile."""
    async with fleet(redis_server.url, 1) as (node,):
        with worker(broker, redis_server, tmp_path) as first:
            broker.send("item:x")
            await asyncio.to_thread(broker.wait_for_offset, 1)
            redis_server.kill()
            node.data.versions["a"] += 1
            broker.send("item:a")
            # It has seen the record when it could have committed it.
            with pytest.raises(AssertionError):
                await eventually(lambda: "purged item:a" in first.output, "a purge", seconds=2)
            await asyncio.to_thread(first.kill)
        assert (await asyncio.to_thread(broker.committed))[0] == 1
        await asyncio.to_thread(redis_server.start)
        with worker(broker, redis_server, tmp_path) as second:
            await eventually(lambda: "purged item:a" in second.output, "the purge")
            await asyncio.to_thread(broker.wait_for_offset, 2)


async def test_a_worker_survives_redis(redis_server: Valkey, broker: Kafka, tmp_path: Path) -> None:
    """A cache that only publishes finds its way back as well."""
    with worker(broker, redis_server, tmp_path) as child:
        broker.send("item:x")
        await asyncio.to_thread(broker.wait_for_offset, 1)
        redis_server.kill()
        broker.send("item:a")
        await asyncio.to_thread(redis_server.start)
        await asyncio.to_thread(broker.wait_for_offset, 2)
        assert "purged item:a" in child.output


async def test_a_worker_ends_when_it_is_asked_to(redis_server: Valkey, broker: Kafka, tmp_path: Path) -> None:
    """SIGINT cancels `run()`; the process is gone within seconds, also while the broker is away."""
    for away in (False, True):
        with worker(broker, redis_server, tmp_path) as child:
            broker.send("item:x")
            await eventually(lambda: "purged item:x" in child.output, "work")
            if away:
                broker.away()
            child._signal(signal.SIGINT)
            await eventually(lambda: not child.alive, "its end", seconds=6)
        broker.back()
