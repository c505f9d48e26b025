"""Messages that no purge can be read from: reported, counted, and never a stop."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqs import Message, PoisonMessage, SQSSource
from fastapi_cacheinval.sources import DROP, KEEP, Change
from tests.contrib.sqs.cloud import Cloud
from tests.contrib.sqs.fed import fed
from tests.helpers.fleet import eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

NONSENSE = {
    "no json": "tags=item:a",
    "no tags": '{"tag": ["item:a"]}',
    "a tag that is none": '{"tags": ["item:a", {}]}',
    "256 KiB": "\u0142" * 131_072,
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
async def test_without_a_dead_letter_queue_it_is_deleted_and_passed(
    redis_server: Valkey, cloud: Cloud, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and said, with its id and why, and without what it holds; what comes after it is purged."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue) as shop:
        await shop.changed("b")
        poison = cloud.send(queue, body)
        cloud.send(queue, {"tags": ["item:b"]})
        await shop.fresh("b")
        await eventually(lambda: cloud.empty(queue) and not shop.state.waiting, "an empty queue")
        assert (shop.state.received, shop.state.done, shop.state.refused, shop.state.failures) == (2, 1, 1, 0)
        assert shop.state.connected
        assert shop.first.statistics.applied == 1
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [text.split(":")[0] for text in said] == [f"sqs cannot read message {poison} and deletes it"]
    assert "item:a" not in caplog.text
    assert len(said[0]) < 250


async def test_with_a_dead_letter_queue_it_ends_there(redis_server: Valkey, cloud: Cloud) -> None:
    """Left to the queue's redrive policy it is handed out as often as that says, and moved, with nothing of it lost."""
    queue, dead = cloud.with_dead_letters(2)
    async with fed(redis_server.url, queue) as shop:
        await shop.changed("b")
        cloud.send(queue, "nonsense")
        cloud.send(queue, {"tags": ["item:b"]})
        await shop.fresh("b")
        await eventually(lambda: cloud.bodies(dead), "the message in the dead-letter queue")
        assert cloud.bodies(dead) == ["nonsense"]
        await eventually(lambda: cloud.empty(queue) and not shop.state.waiting, "an empty queue")
        assert (shop.state.done, shop.state.refused) == (1, 2)


@pytest.mark.parametrize(("chosen", "left"), [(DROP, False), (KEEP, True)])
async def test_the_user_chooses_whatever_the_queue_is(
    redis_server: Valkey, cloud: Cloud, chosen: Any, left: bool
) -> None:
    """`DROP` takes it from a queue with a dead-letter queue, `KEEP` leaves it in one without."""
    queue = cloud.queue() if left else cloud.with_dead_letters(5)[0]
    async with fed(redis_server.url, queue, on_unreadable=chosen) as shop:
        cloud.send(queue, "nonsense")
        await eventually(lambda: shop.state.refused and not shop.state.waiting, "its being refused")
        assert cloud.empty(queue) is not left
        # It comes back, after a second.
        if left:
            await eventually(lambda: shop.state.refused == 2, "its being refused again")


@pytest.mark.parametrize(("answer", "left"), [(DROP, False), (KEEP, True)])
async def test_a_handler_is_handed_it_and_says_what_becomes_of_it(
    redis_server: Valkey, cloud: Cloud, answer: Any, left: bool
) -> None:
    """The message whole, and the error."""
    queue = cloud.queue()
    handed: list[tuple[Message, PoisonMessage]] = []

    async def on_unreadable(message: Message, error: PoisonMessage) -> Any:
        handed.append((message, error))
        return answer

    async with fed(redis_server.url, queue, on_unreadable=on_unreadable) as shop:
        sent = cloud.send(queue, "nonsense", {"kind": "price"})
        await eventually(lambda: shop.state.refused and not shop.state.waiting, "its being refused")
        assert cloud.empty(queue) is not left
    message, error = handed[0]
    assert (message.id, message.body, message.message_attributes) == (sent, "nonsense", {"kind": "price"})
    assert "no JSON" in str(error)


@pytest.mark.parametrize("mistake", ["raises", "answers"])
async def test_a_handler_that_fails_loses_nothing(redis_server: Valkey, cloud: Cloud, mistake: str) -> None:
    """It raises, or answers what is no answer: the message comes back, and the trouble is told until it has worked."""
    queue = cloud.queue()
    calls: list[str] = []

    async def on_unreadable(message: Message, error: PoisonMessage) -> Any:
        calls.append(message.id)
        if len(calls) == 1:
            if mistake == "raises":
                raise ConnectionError("the archive is away")
            return True
        return DROP

    async with fed(redis_server.url, queue, on_unreadable=on_unreadable) as shop:
        cloud.send(queue, "nonsense")
        trouble = {
            "raises": "ConnectionError: the archive is away",
            "answers": "TypeError: on_unreadable answers with a Change, KEEP or DROP, not bool",
        }
        await eventually(lambda: shop.state.trouble == trouble[mistake], "the trouble")
        await eventually(lambda: shop.state.refused == 1 and not shop.state.trouble, "its being refused")
        await eventually(lambda: cloud.empty(queue) and not shop.state.waiting, "an empty queue")
        assert (len(calls), shop.state.failures) == (2, 1)


async def test_in_a_fifo_queue_it_does_not_hold_up_its_group(redis_server: Valkey, cloud: Cloud) -> None:
    """What comes after it in its group, in the same poll, is purged and deleted all the same."""
    queue = cloud.queue("poison.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for body in ("nonsense", {"tags": ["item:a"]}):
        cloud.send(queue, body, MessageGroupId="one")
    async with fed(redis_server.url, queue, on_unreadable=KEEP) as shop:
        await shop.done()
        assert shop.state.refused >= 1
        assert sum(cloud.counts(queue)) == 1


async def test_a_function_with_a_bug_does_not_empty_a_queue_that_has_somewhere_to_put_it(
    redis_server: Valkey, cloud: Cloud
) -> None:
    """Every message refused for the sake of a bug is in the dead-letter queue, from where it can be redriven."""
    queue, dead = cloud.with_dead_letters(1)

    def tags(message: Message) -> list[str]:
        raise NameError("item")

    async with fed(redis_server.url, queue, tags=tags) as shop:
        for number in range(3):
            cloud.send(queue, {"item": number})
        await eventually(lambda: cloud.counts(dead)[0] == 3, "all three")
        assert (shop.state.done, shop.state.refused) == (0, 3)


async def test_a_function_with_a_bug_does_not_empty_a_queue_that_has_nowhere_to_put_it(
    redis_server: Valkey, cloud: Cloud
) -> None:
    """Without a dead-letter queue the message stays in the queue and comes again, until the function is mended."""
    queue = cloud.queue()
    broken = True

    def tags(message: Message) -> list[str]:
        if broken:
            raise NameError("item")
        return ["item:b"]

    async with fed(redis_server.url, queue, tags=tags) as shop:
        await shop.changed("b")
        cloud.send(queue, {"item": "b"})
        await eventually(lambda: shop.state.refused, "its being refused")
        assert not cloud.empty(queue)
        broken = False
        await shop.fresh("b")
        await eventually(lambda: cloud.empty(queue) and not shop.state.waiting, "an empty queue")


async def test_a_function_that_fails_for_a_while_is_called_again(redis_server: Valkey, cloud: Cloud) -> None:
    """A look-up that times out is not about the message: nobody is asked, and it is purged when it comes again."""
    queue = cloud.queue()
    failures = [TimeoutError("the registry is away")]

    def tags(message: Message) -> list[str]:
        if failures:
            raise failures.pop()
        return ["item:b"]

    async with fed(redis_server.url, queue, tags=tags, on_unreadable=DROP) as shop:
        await shop.changed("b")
        cloud.send(queue, {"item": "b"})
        await eventually(lambda: shop.state.trouble, "the trouble")
        await shop.fresh("b")
        await shop.done()
        assert (shop.state.refused, shop.state.failures) == (0, 1)


async def test_a_change_is_purged_in_place_of_it(redis_server: Valkey, cloud: Cloud) -> None:
    """The handler says what is wide enough; then the message is deleted."""
    queue = cloud.queue()
    async with fed(redis_server.url, queue, on_unreadable=lambda message, error: Change(("item:b",))) as shop:
        await shop.changed("b")
        cloud.send(queue, "nonsense")
        await shop.fresh("b")
        await eventually(lambda: cloud.empty(queue) and not shop.state.waiting, "an empty queue")
        assert (shop.state.done, shop.state.refused) == (0, 1)


@pytest.mark.filterwarnings("ignore:on_poison is on_unreadable now")
@pytest.mark.parametrize("answer", ["delete", "leave", None, "neither"])
async def test_the_old_name_works(redis_server: Valkey, cloud: Cloud, answer: str | None) -> None:
    """`on_poison` of 0.1 is, or answers, "delete" or "leave"; None is "delete", and anything else comes again."""
    queue = cloud.queue()

    async def on_poison(message: Message, error: PoisonMessage) -> str | None:
        return answer

    given: list[Any] = [on_poison, answer] if answer in ("delete", "leave") else [on_poison]
    for one in given:
        async with fed(redis_server.url, queue, on_poison=one) as shop:
            cloud.send(queue, "nonsense")
            await eventually(lambda: shop.state.refused or shop.state.failures, "an answer")
            await eventually(lambda: not shop.state.waiting, "the end of it")
            assert cloud.empty(queue) is (answer in ("delete", None))
            assert bool(shop.state.failures) is (answer == "neither")


def test_the_old_name_says_so() -> None:
    """It warns where it is given."""
    with pytest.warns(DeprecationWarning, match="on_poison is on_unreadable now"):
        SQSSource(HTTPCache(), "https://sqs.eu-west-1.amazonaws.com/1/q", on_poison="leave")
