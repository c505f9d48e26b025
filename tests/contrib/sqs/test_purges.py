"""A message in a queue, and a response that is fresh on another replica."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.sqs import Message, SQSSource
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqs.cloud import SOON, Cloud
from tests.contrib.sqs.fed import fed
from tests.helpers.fleet import CALM, eventually, fleet
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def test_a_message_makes_every_replica_fresh_and_is_deleted(redis_server: Valkey, cloud: Cloud) -> None:
    """What one replica reads from the queue another obeys; other responses stay, and the queue is empty."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue) as shop:
        await shop.changed("a", "b")
        cloud.send(queue, {"tags": ["item:a"]})
        await shop.fresh("a")
        await shop.still_old("b")
        await shop.done()
        assert cloud.empty(queue)
        assert (shop.state.received, shop.state.done, shop.state.refused, shop.state.waiting) == (1, 1, 0, 0)


async def test_a_soft_message_lets_stale_answers_be_served(redis_server: Valkey, cloud: Cloud) -> None:
    """`"soft": true` in the message makes a soft purge; so does `soft=True` for those that do not say."""
    queue, other = cloud.queue(), cloud.queue()
    async with (
        fed(redis_server.url, queue) as shop,
        fleet(redis_server.url, 1, data=shop.first.data, first=5) as (third,),
    ):
        with capture_invalidations(shop.first.cache) as receipts:
            cloud.send(queue, {"tags": ["x"], "soft": True})
            await shop.done()
        source = SQSSource(third.cache, other, soft=True, **SOON)
        with capture_invalidations(third.cache) as others:
            async with source:
                cloud.send(other, {"tags": ["y"]})
                cloud.send(other, {"tags": ["z"], "soft": False})
                await eventually(lambda: source.state().done == 2, "both")
    assert [(receipt.tags, receipt.soft) for receipt in receipts] == [(("x",), True)]
    assert {receipt.tags: receipt.soft for receipt in others} == {("y",): True, ("z",): False}


async def test_everything_can_be_purged(redis_server: Valkey, cloud: Cloud) -> None:
    """`"everything": true` is a `clear()`."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue) as shop:
        await shop.changed("a", "b")
        with capture_invalidations(shop.first.cache) as receipts:
            cloud.send(queue, {"everything": True})
            await shop.fresh("a", "b")
            await shop.done()
        assert [receipt.everything for receipt in receipts] == [True]


async def test_a_function_names_the_tags(redis_server: Valkey, cloud: Cloud) -> None:
    """The user's function is handed the message as the producer wrote it, and what it names is purged; nothing, too."""
    queue = cloud.queue()
    seen: list[Message] = []

    def tags(message: Message) -> list[str]:
        seen.append(message)
        product = message.json()["product"]
        return [f"item:{product}"] if product else []

    async with fed(redis_server.url, queue, tags=tags) as shop:
        await shop.changed("a")
        sent = cloud.send(queue, {"product": "a"}, {"kind": "price"})
        cloud.send(queue, {"product": None})
        await shop.fresh("a")
        await shop.done(2)
        assert cloud.empty(queue)
    message = next(message for message in seen if message.id == sent)
    assert (message.body, message.envelopes) == ('{"product": "a"}', ())
    assert message.message_attributes == {"kind": "price"}
    assert message.receive_count == 1


async def test_notifications_of_sns_are_unwrapped(redis_server: Valkey, cloud: Cloud) -> None:
    """A topic's notification is read for what was published, its attributes and its topic; raw delivery as well."""
    seen: list[Message] = []

    def tags(message: Message) -> list[str]:
        seen.append(message)
        return message.json()["tags"]

    queue = cloud.queue()
    wrapped, raw = cloud.topic(queue), cloud.topic(queue, RawMessageDelivery="true")
    async with fed(redis_server.url, queue, tags=tags) as shop:
        await shop.changed("a", "b")
        cloud.publish(wrapped, {"tags": ["item:a"]}, {"kind": "price"})
        await shop.fresh("a")
        cloud.publish(raw, {"tags": ["item:b"]}, {"kind": "stock"})
        await shop.fresh("b")
        await shop.done(2)
    first, second = seen
    assert (first.envelopes, first.topic, first.subject) == (("sns",), wrapped, "a change")
    assert first.message_attributes == {"kind": "price"}
    assert (second.envelopes, second.topic) == ((), "")
    assert second.message_attributes == {"kind": "stock"}


async def test_events_of_eventbridge_are_unwrapped(redis_server: Valkey, cloud: Cloud) -> None:
    """An event's `detail` is the body; its source and type are told."""
    seen: list[Message] = []

    def tags(message: Message) -> list[str]:
        seen.append(message)
        return [f"item:{message.json()['name']}"]

    queue = cloud.queue()
    bus = cloud.bus(queue)
    async with fed(redis_server.url, queue, tags=tags) as shop:
        await shop.changed("a")
        cloud.put(bus, "price changed", {"name": "a", "price": "12,50 €"})
        await shop.fresh("a")
        await shop.done()
    (message,) = seen
    assert (message.envelopes, message.source, message.detail_type) == (("eventbridge",), "shop", "price changed")
    assert message.body == '{"name":"a","price":"12,50 €"}'


async def test_events_that_come_by_way_of_sns_are_unwrapped_twice(redis_server: Valkey, cloud: Cloud) -> None:
    """What EventBridge sends is published to a topic, as its rules do that have one for a target: both envelopes come off."""
    collected, queue = cloud.queue(), cloud.queue()
    bus, topic = cloud.bus(collected), cloud.topic(queue)
    cloud.put(bus, "purge", {"tags": ["item:a"]})
    await eventually(lambda: cloud.bodies(collected), "the event")
    (event,) = cloud.bodies(collected)
    assert json.loads(event)["detail-type"] == "purge"
    async with fed(redis_server.url, queue) as shop:
        await shop.changed("a")
        cloud.publish(topic, event)
        await shop.fresh("a")
        await shop.done()


async def test_duplicates_and_replays_are_harmless(redis_server: Valkey, cloud: Cloud) -> None:
    """The same message ten times, and all of them once more, after newer ones: nothing is lost and nothing brings the old back."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue) as shop:
        for _ in range(2):
            await shop.changed("a")
            for _ in range(10):
                cloud.send(queue, {"tags": ["item:a"]})
            await shop.fresh("a")
        await shop.done(20)
        await shop.fresh("a")
        assert cloud.empty(queue)


async def test_then_hears_the_receipt_before_the_message_is_deleted(redis_server: Valkey, cloud: Cloud) -> None:
    """The purge has its number when `then` is called, and the message is still there; it goes when `then` returns."""
    queue = cloud.queue()
    heard: list[tuple[Receipt, tuple[int, int]]] = []

    async def then(receipt: Receipt) -> None:
        heard.append((receipt, cloud.counts(queue)))

    async with fed(redis_server.url, queue, then=then) as shop:
        cloud.send(queue, {"tags": ["item:a"]})
        await shop.done()
        assert [(receipt.tags, counts) for receipt, counts in heard] == [(("item:a",), (0, 1))]
        assert heard[0][0].seq == shop.first.statistics.applied
        assert cloud.empty(queue)


async def test_a_message_whose_then_fails_comes_again(redis_server: Valkey, cloud: Cloud) -> None:
    """It is not deleted, comes back after a second, and is purged and told once more; the failure is counted and said."""
    queue = cloud.queue()
    heard: list[float] = []

    async def then(receipt: Receipt) -> None:
        heard.append(time.monotonic())
        if len(heard) == 1:
            raise ConnectionError("the CDN is away")

    # Without the pause it would come back only after a minute.
    async with fed(redis_server.url, queue, then=then, visibility_timeout=60) as shop:
        cloud.send(queue, {"tags": ["item:a"]})
        await eventually(lambda: shop.state.trouble == "ConnectionError: the CDN is away", "the trouble")
        await shop.done()
        assert heard[1] - heard[0] >= 0.9
        assert (shop.state.received, shop.state.failures) == (2, 1)
        await eventually(lambda: not shop.state.trouble, "the end of the trouble")
        assert cloud.empty(queue)


@pytest.fixture
def ordered(cloud: Cloud) -> str:
    """A FIFO queue with four messages in each of two groups."""
    queue = cloud.queue("ordered.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for number in (1, 2, 3, 4):
        cloud.send(queue, {"tags": [f"a{number}"]}, MessageGroupId="a")
        cloud.send(queue, {"tags": [f"b{number}"]}, MessageGroupId="b")
    return queue


class FailsOnce:
    """A `then` that fails for `a2` the first time, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def __call__(self, receipt: Receipt) -> None:
        (tag,) = receipt.tags
        self.heard.append(tag)
        if tag == "a2" and self.heard.count(tag) == 1:
            raise ConnectionError("once")

    def of(self, group: str) -> list[str]:
        """What it has heard of one group."""
        return [tag for tag in self.heard if tag[0] == group]


async def test_a_fifo_queue_keeps_its_order_in_each_group(redis_server: Valkey, cloud: Cloud, ordered: str) -> None:
    """Message after message, with one that fails on the way: it comes again before those after it; the other group does not wait."""
    then = FailsOnce()
    async with fed(redis_server.url, ordered, then=then, batch=1) as shop:
        await shop.done(8)
        assert then.of("a") == ["a1", "a2", "a2", "a3", "a4"]
        assert then.of("b") == ["b1", "b2", "b3", "b4"]
        assert then.heard[-3:] == ["a2", "a3", "a4"]
        assert cloud.empty(ordered)


async def test_in_a_batch_of_a_fifo_queue_nothing_overtakes_what_failed(
    redis_server: Valkey, cloud: Cloud, ordered: str
) -> None:
    """All eight in one poll: after the failure the rest of its group is given back unread, the other group is done."""
    then = FailsOnce()
    async with fed(redis_server.url, ordered, then=then) as shop:
        await shop.done(5)
        assert then.of("a") == ["a1", "a2"]
        assert then.of("b") == ["b1", "b2", "b3", "b4"]
        assert (shop.state.received, shop.state.failures) == (8, 1)


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"batch": 1}, {"wait_seconds": 0}], ids=str)
async def test_many_messages_are_all_purged_and_all_deleted(redis_server: Valkey, cloud: Cloud, options: Any) -> None:
    """Sixty messages, whatever the batches and however many polls: each is received, done, and gone.

    Polls side by side may be handed the same message, as with SQS itself.
    """
    queue = cloud.queue()
    for number in range(60):
        cloud.send(queue, {"tags": [f"item:{number}"]})
    async with fed(redis_server.url, queue, **{"visibility_timeout": 30, **options}) as shop:
        with capture_invalidations(shop.first.cache) as receipts:
            await shop.done(60)
            await eventually(lambda: not shop.state.waiting and cloud.empty(queue), "an empty queue")
        assert {receipt.tags for receipt in receipts} == {(f"item:{number}",) for number in range(60)}
        assert shop.state.received == shop.state.done >= 60
        assert shop.state.failures == 0


async def test_it_runs_alone_as_a_worker(redis_server: Valkey, cloud: Cloud) -> None:
    """A process that serves nothing awaits `run()`; replicas elsewhere obey, and cancelling it ends it."""
    queue = cloud.queue()
    cloud.send(queue, {"tags": ["item:a"]})
    async with fleet(redis_server.url, 1) as (node,):
        with capture_invalidations(node.cache) as own:
            await node.in_touch()
            await node.ask()
            node.data.versions["a"] += 1
            cache = HTTPCache.from_url(redis_server.url, **CALM)
            source = SQSSource(cache, queue, **SOON)
            worker = asyncio.ensure_future(source.run())
            await eventually(lambda: source.state().done, "the message")
            assert b'"version":1' in (await node.ask()).body
            worker.cancel()
            await asyncio.wait((worker,))
            assert worker.cancelled()
            assert not cache.running
        assert own == []


async def test_it_serves_a_cache_of_one_process(cloud: Cloud) -> None:
    """Without Redis a purge has its number at once, and all goes as it does with one."""
    queue = cloud.queue()
    cache = HTTPCache()
    source = SQSSource(cache, queue, **SOON)
    cache.attach(source)
    async with cache:
        cloud.send(queue, {"tags": ["a"]})
        await eventually(lambda: source.state().done, "the message")
        assert cache.statistics().applied == 1
    assert cloud.empty(queue)
