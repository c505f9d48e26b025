"""The loss of Redis, of SQS, and of the process itself, in any order: nothing is lost, and nothing is left hidden."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.sqs import SQSSource
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqs.cloud import REGION, SOON, Cloud
from tests.contrib.sqs.fed import fed
from tests.helpers.fleet import CALM, QUICK, eventually, fleet
from tests.helpers.life import ROOT
from tests.servers import Valkey
from tests.servers.child import Child

pytestmark = pytest.mark.anyio


async def watched(cloud: Cloud, queue: str, counts: tuple[int, int], seconds: float) -> None:
    """For so long a queue has so many messages to be had and so many hidden."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert await asyncio.to_thread(cloud.counts, queue) == counts
        await asyncio.sleep(0.05)


async def counted(cloud: Cloud, queue: str, counts: tuple[int, int]) -> None:
    """Wait until a queue has so many messages to be had and so many hidden."""
    deadline = time.monotonic() + 20
    while (found := await asyncio.to_thread(cloud.counts, queue)) != counts:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def test_while_redis_is_away_messages_stay_hidden_and_are_deleted_once_it_is_back(
    redis_server: Valkey, cloud: Cloud
) -> None:
    """Past twice the visibility timeout nobody else is handed them; with Redis back they are purged, then deleted."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue, visibility_timeout=1, cache=QUICK) as shop:
        await shop.changed("a", "b")
        redis_server.kill()
        cloud.send(queue, {"tags": ["item:a"]})
        cloud.send(queue, {"tags": ["item:b"]})
        await eventually(lambda: shop.state.waiting, "a message in hand")
        await counted(cloud, queue, (2 - shop.state.waiting, shop.state.waiting))
        await watched(cloud, queue, (2 - shop.state.waiting, shop.state.waiting), 2.5)
        assert (shop.state.done, shop.state.connected, shop.state.running) == (0, True, True)
        received = shop.state.received
        assert shop.state.waiting == received
        await asyncio.to_thread(redis_server.restart)
        await shop.fresh("a", "b")
        await shop.done(2)
        assert (shop.state.received, shop.state.waiting) == (2, 0)
        assert cloud.empty(queue)


@pytest.mark.parametrize("first_back", ["redis", "sqs"])
async def test_redis_and_sqs_come_back_in_either_order(redis_server: Valkey, cloud: Cloud, first_back: str) -> None:
    """Both killed while a message is in hand: whoever is back first, what comes after is purged and deleted, without a restart."""
    queue = cloud.queue("steady")
    async with fed(redis_server.url, queue, visibility_timeout=1, cache=QUICK) as shop:
        await shop.changed("a")
        redis_server.kill()
        cloud.send(queue, {"tags": ["item:a"]})
        await eventually(lambda: shop.state.waiting, "a message in hand")
        cloud.kill()
        await eventually(lambda: shop.state.trouble, "the trouble with SQS")
        # What a queue holds is SQS's to keep; this one forgets, so it is sent once more.
        if first_back == "redis":
            await asyncio.to_thread(redis_server.restart)
            await eventually(lambda: not shop.state.waiting, "the end of what was in hand")
            await asyncio.to_thread(cloud.start)
            cloud.queue("steady")
        else:
            await asyncio.to_thread(cloud.start)
            cloud.queue("steady")
            await asyncio.to_thread(redis_server.restart)
        cloud.send(queue, {"tags": ["item:a", "item:b"]})
        await shop.fresh("a")
        await eventually(lambda: shop.state.done and shop.state.connected and not shop.state.trouble, "being well")
        assert shop.state.failures
        await counted(cloud, queue, (0, 0))


async def test_it_waits_for_an_sqs_that_is_not_there_yet(redis_server: Valkey, cloud: Cloud) -> None:
    """The app starts and serves without it; the trouble says what is missing, once in the log; then it works."""
    queue = cloud.queue("late")
    cloud.kill()
    async with fed(redis_server.url, queue) as shop:
        await eventually(lambda: shop.state.failures >= 2, "two attempts")
        assert shop.state.trouble == (
            f"QueueUnavailable: GetQueueAttributes: http://127.0.0.1:{cloud.port} cannot be reached"
        )
        assert not shop.state.connected
        await shop.changed("a")
        await asyncio.to_thread(cloud.start)
        cloud.queue("late")
        cloud.send(queue, {"tags": ["item:a"]})
        await shop.fresh("a")
        await shop.done()
        await eventually(lambda: shop.state.connected and not shop.state.trouble, "being well")


async def test_a_poll_is_ended_at_once(cloud: Cloud) -> None:
    """A stop in the middle of a poll of 20 seconds takes no time, and leaves nothing in trouble."""
    cache = HTTPCache()
    source = SQSSource(cache, cloud.queue(), region=REGION, concurrency=3)
    cache.attach(source)
    await cache.start()
    await eventually(lambda: source.state().connected, "the first poll")
    await asyncio.sleep(0)
    began = time.monotonic()
    await cache.stop()
    assert time.monotonic() - began < 2
    assert (source.state().running, source.state().connected, source.state().failures) == (False, False, 0)


async def test_what_is_in_hand_at_the_end_is_there_for_others_at_once(redis_server: Valkey, cloud: Cloud) -> None:
    """Stopped while Redis is away, it gives back what it could not purge; what was purged is deleted."""
    queue = cloud.queue()
    stuck = asyncio.Event()

    async def then(receipt: Receipt) -> None:
        if "slow" in receipt.tags:
            stuck.set()
            await asyncio.Event().wait()

    async with fed(redis_server.url, queue, visibility_timeout=600, then=then) as shop:
        for tag in ("slow", "quick"):
            cloud.send(queue, {"tags": [tag]})
        await asyncio.wait_for(stuck.wait(), 20)
        await eventually(lambda: shop.state.waiting == 2 or cloud.counts(queue) == (1, 1), "what can be had")
        with capture_invalidations(shop.first.cache):
            await shop.first.cache.stop()
        assert cloud.counts(queue)[1] == 0
        assert '{"tags": ["slow"]}' in cloud.bodies(queue)


@pytest.mark.parametrize("sqs", ["there", "away"])
async def test_a_stop_while_redis_is_away_is_prompt(redis_server: Valkey, cloud: Cloud, sqs: str) -> None:
    """In-flight messages are given back where SQS answers, and waited for no longer than two seconds where it does not."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue, visibility_timeout=600, cache=QUICK) as shop:
        await shop.first.in_touch()
        redis_server.kill()
        cloud.send(queue, {"tags": ["a"]})
        await eventually(lambda: shop.state.waiting, "a message in hand")
        if sqs == "away":
            cloud.kill()
        began = time.monotonic()
        await shop.first.cache.stop()
        assert time.monotonic() - began < 10
        assert shop.state.waiting == 0
        if sqs == "there":
            assert cloud.counts(queue) == (1, 0)


WORKER = """
import asyncio, os, signal, sys
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqs import SQSSource

async def then(receipt):
    if os.environ["DIES"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

redis, queue = sys.argv[1:]
cache = HTTPCache.from_url(redis, secret="a secret that all replicas share", staleness_bound=6.0, redis_timeout=2.0)
asyncio.run(SQSSource(cache, queue, then=then, wait_seconds=1, visibility_timeout=2, region="eu-west-1").run())
"""


async def test_a_worker_killed_between_purge_and_deletion_loses_nothing(
    redis_server: Valkey, cloud: Cloud, tmp_path: Path
) -> None:
    """SIGKILL once the purge has its number: the replicas are fresh, the message comes back to another worker, and ends there."""
    queue = cloud.queue()

    def worker(name: str, *, dies: bool) -> Child:
        command = [sys.executable, "-c", WORKER, redis_server.url, queue]
        return Child(name, command, tmp_path, {"DIES": str(int(dies)), "PYTHONPATH": str(ROOT)})

    async with fleet(redis_server.url, 1) as (node,):
        await node.in_touch()
        await node.ask()
        node.data.versions["a"] += 1
        cloud.send(queue, {"tags": ["item:a"]})
        first = worker("first worker", dies=True)
        await eventually(lambda: not first.alive, "its death")
        assert first.status == -9
        await eventually(lambda: node.statistics.applied == 1, "the first purge")
        assert b'"version":1' in (await node.ask()).body
        assert not cloud.empty(queue)
        second = worker("second worker", dies=False)
        await counted(cloud, queue, (0, 0))
        await eventually(lambda: node.statistics.applied == 2, "the purge of the second")
        second.ask_to_end()
        second.wait()


async def test_a_worker_killed_before_its_purge_loses_nothing(
    redis_server: Valkey, cloud: Cloud, tmp_path: Path
) -> None:
    """Killed while Redis is away, with the message in hand: it comes back when its time is over, to whoever listens then."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue, cache=CALM) as shop:
        await shop.changed("a")
        await shop.first.cache.stop()
        redis_server.kill()
        command = [sys.executable, "-c", WORKER, redis_server.url, queue]
        killed = Child("worker", command, tmp_path, {"DIES": "0", "PYTHONPATH": str(ROOT)})
        cloud.send(queue, {"tags": ["item:a"]})
        await counted(cloud, queue, (0, 1))
        killed.kill()
        await asyncio.to_thread(redis_server.restart)
        await shop.first.cache.start()
        await shop.fresh("a")
        await shop.done()
        assert cloud.empty(queue)


class Faulty:
    """What stands before the client of a source and fails some of its calls as SQS does."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failing: dict[str, list[Callable[[list[Any]], list[dict[str, Any]]]]] = {}

    def __getattr__(self, name: str) -> Any:
        async def call(**options: Any) -> Any:
            self.calls.append((name, options))
            faults = self.failing.get(name)
            if not faults:
                return await getattr(self._client, name)(**options)
            failed = faults.pop(0)(options["Entries"])
            numbers = {fault["Id"] for fault in failed}
            left = [entry for entry in options["Entries"] if entry["Id"] not in numbers]
            answer = await getattr(self._client, name)(**{**options, "Entries": left}) if left else {}
            return {**answer, "Failed": [*answer.get("Failed", []), *failed]}

        return call


def internal(entries: list[Any]) -> list[dict[str, Any]]:
    """Every entry failed for SQS's own reasons."""
    return [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in entries]


def expired(entries: list[Any]) -> list[dict[str, Any]]:
    """Every receipt is too old."""
    return [{"Id": entry["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid"} for entry in entries]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[Faulty]:
    """The clients of all sources, with faults to come."""
    from fastapi_cacheinval.contrib.sqs import queues

    made: list[Faulty] = []
    plain = queues.Queue.__init__

    def init(self: Any, client: Any, *rest: Any, **more: Any) -> None:
        made.append(Faulty(client))
        plain(self, made[-1], *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(queues.Queue, "__init__", init)
    return made


async def test_a_deletion_that_fails_inside_sqs_is_made_again(
    redis_server: Valkey, cloud: Cloud, faulty: list[Faulty]
) -> None:
    """Entries that failed for SQS's own reasons are deleted by the next tries; the message is purged once."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue, visibility_timeout=600) as shop:
        await eventually(lambda: shop.state.connected, "the first poll")
        faulty[0].failing["delete_message_batch"] = [internal, internal]
        cloud.send(queue, {"tags": ["a"]})
        await shop.done()
        assert cloud.empty(queue)
        assert (shop.state.received, shop.state.done) == (1, 1)
    assert [name for name, _ in faulty[0].calls].count("delete_message_batch") == 3


@pytest.mark.parametrize("fault", [internal, expired])
async def test_a_message_that_cannot_be_deleted_is_purged_twice(
    redis_server: Valkey, cloud: Cloud, faulty: list[Faulty], fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With an expired receipt, or SQS failing for longer, the message comes back: a duplicate, which is harmless."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue, visibility_timeout=1) as shop:
        await eventually(lambda: shop.state.connected, "the first poll")
        faulty[0].failing["delete_message_batch"] = [fault] * (1 if fault is expired else 4)
        cloud.send(queue, {"tags": ["a"]})
        await shop.done()
        assert cloud.empty(queue)
        assert (shop.state.received, shop.state.done, shop.state.failures) == (2, 1, 0)
    assert "could not delete 1 message(s), which are purged again" in caplog.text


async def test_an_extension_that_fails_is_made_again(redis_server: Valkey, cloud: Cloud, faulty: list[Faulty]) -> None:
    """One of three extensions fails: the message is still not handed out to anybody else."""
    queue = cloud.queue()
    gate = asyncio.Event()

    async def then(receipt: Receipt) -> None:
        await gate.wait()

    async with fed(redis_server.url, queue, visibility_timeout=1, then=then) as shop:
        await eventually(lambda: shop.state.connected, "the first poll")
        faulty[0].failing["change_message_visibility_batch"] = [internal, expired]
        cloud.send(queue, {"tags": ["a"]})
        await eventually(lambda: shop.state.waiting, "a message in hand")
        await eventually(lambda: not faulty[0].failing["change_message_visibility_batch"], "the faults")
        gate.set()
        await shop.done()
        assert cloud.empty(queue)


async def test_what_somebody_else_was_handed_meanwhile_is_purged_twice(
    redis_server: Valkey, cloud: Cloud, faulty: list[Faulty]
) -> None:
    """Held past its timeout it goes to another source, which deletes it; the first ends all the same, and is not in trouble."""
    queue = cloud.queue()
    gate = asyncio.Event()

    async def then(receipt: Receipt) -> None:
        await gate.wait()

    async with fed(redis_server.url, queue, visibility_timeout=1, then=then) as shop:
        await eventually(lambda: shop.state.connected, "the first poll")
        faulty[0].failing["change_message_visibility_batch"] = [expired] * 1000
        cloud.send(queue, {"tags": ["a"]})
        await eventually(lambda: shop.state.waiting, "a message in hand")
        async with fleet(redis_server.url, 1, first=5) as (third,), SQSSource(third.cache, queue, **SOON) as other:
            await eventually(lambda: other.state().done, "the purge of the other")
        gate.set()
        await eventually(lambda: not shop.state.waiting, "the end of the first")
        assert (shop.state.failures, shop.state.trouble) == (0, "")
        await counted(cloud, queue, (0, 0))


async def test_past_twelve_hours_messages_are_let_go_of(
    redis_server: Valkey, cloud: Cloud, faulty: list[Faulty], caplog: pytest.LogCaptureFixture
) -> None:
    """As long as SQS allows they are hidden again and again, then given back, handed out anew, and done in the end."""
    queue = cloud.queue()
    gate = asyncio.Event()

    async def then(receipt: Receipt) -> None:
        await gate.wait()

    def hidden() -> list[int]:
        calls = [options for name, options in faulty[0].calls if name == "change_message_visibility_batch"]
        return [options["Entries"][0]["VisibilityTimeout"] for options in calls]

    async with fed(redis_server.url, queue, visibility_timeout=30_000, clocks=True, then=then) as shop:
        clock = shop.first.clock
        await eventually(lambda: shop.state.connected, "the first poll")
        cloud.send(queue, {"tags": ["item:a"]})
        for seconds in (30_000, 23_140, 13_140, 0):
            # A third of the timeout is a long time: nothing else waits for as much.
            await eventually(
                lambda: any(when - clock.now() > 9_000 for when, _, alarm in clock._alarms if not alarm.cancelled),
                "its holding the message",
            )
            clock.tick(10_000)
            await eventually(lambda: hidden()[-1:] == [seconds], f"its being hidden for {seconds} s")  # noqa: B023
        assert hidden() == [30_000, 23_140, 13_140, 0]
        assert "for as long as SQS allows" in caplog.text
        await eventually(lambda: shop.state.received == 2, "its being handed out again")
        gate.set()
        await shop.done()
