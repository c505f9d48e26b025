"""Messages that are lost, doubled, late, out of order, of another term, or no messages at all."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
import redis

from fastapi_cacheinval.bus.call import Call, log_keys
from fastapi_cacheinval.bus.entries import decode_line, encode_payload
from fastapi_cacheinval.bus.script import LUA
from fastapi_cacheinval.core.tag_limits import MOST_TAGS
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.trouble import agreed, filled_everywhere, never_stale, written
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

CHANNEL = "{cacheinval}:purges"


class Wire:
    """What is published on the log's channel, and a hand to publish there."""

    def __init__(self, server: Valkey) -> None:
        self._client = redis.Redis(port=server.port)
        self._pubsub = self._client.pubsub()
        self._pubsub.subscribe(CHANNEL)
        assert self._pubsub.get_message(timeout=5) is not None

    def heard(self) -> bytes:
        """The next message."""
        message: Any = self._pubsub.get_message(timeout=5)
        assert message is not None
        data = message["data"]
        assert isinstance(data, bytes)
        return data

    def say(self, message: bytes) -> None:
        """Publish to everybody."""
        assert self._client.publish(CHANNEL, message) >= 2

    def close(self) -> None:
        """Hear no more."""
        self._pubsub.close()
        self._client.close()


@asynccontextmanager
async def listening(server: Valkey, count: int = 2) -> AsyncIterator[tuple[list[Node], Wire]]:
    """Replicas whose heartbeats are ten seconds apart, so that messages and their repair can be told from those."""
    wire = Wire(server)
    try:
        async with fleet(server.url, count, staleness_bound=30) as nodes:
            yield nodes, wire
    finally:
        wire.close()


def beats(server: Valkey) -> int:
    """How often the log was asked."""
    stats = server.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


def line_of(message: bytes, **changed: Any) -> bytes:
    """The same message with other header fields, or another payload."""
    header, _, payload = message.partition(b"\n")
    names: tuple[str, ...] = ("format", "term", "term_nonce", "seq", "nonce", "at")
    fields: dict[str, bytes] = dict(zip(names, header.split(b" "), strict=True))
    payload = changed.pop("payload", payload)
    fields.update({name: str(value).encode() for name, value in changed.items()})
    return b" ".join(fields[name] for name in names) + b"\n" + payload


def call_of(node: Node, payload: bytes, tags: tuple[bytes, ...], channel: str = CHANNEL) -> Call:
    """The script's arguments for a purge by somebody who has read as far as a replica."""
    ask = node.cache._core.engine.replica.ask()
    return Call(
        replica="",
        term=ask.term.number,
        term_nonce=ask.term.nonce,
        seq=ask.seq,
        nonce=ask.nonce,
        fresh="f" * 16,
        bound=30.0,
        channel=channel.encode(),
        payload=payload,
        tags=tags,
    )


def run_by_hand(server: Valkey, call: Call) -> None:
    """Have the server run the log's script once."""
    with redis.Redis(port=server.port) as client:
        client.eval(LUA, 4, *log_keys("cacheinval")[:4], *call.arguments())


async def test_a_doubled_and_an_old_message_change_nothing(redis_server: Valkey) -> None:
    """Lines that have been applied are not applied again: what was filled after them stays."""
    async with listening(redis_server) as ((a, b), wire):
        await written(a)
        first = wire.heard()
        await written(a)
        second = wire.heard()
        await eventually(lambda: agreed(a, b), "both purges")
        await a.ask()
        await a.written()
        assert_hit(await b.ask())
        resets = b.statistics.resets
        for message in (second, first, second, first):
            wire.say(message)
        await written(a, "other")
        await eventually(lambda: agreed(a, b), "the purge behind them")
        assert_hit(await b.ask())
        assert b.statistics.resets == resets


async def test_a_gap_asks_the_log_at_once(redis_server: Valkey) -> None:
    """A message whose predecessors were lost: they are read from the log long before the next heartbeat."""
    async with listening(redis_server) as ((a, b), _):
        await filled_everywhere(a, b)
        # Written to the log, and said to nobody.
        run_by_hand(
            redis_server, call_of(a, encode_payload(("item:a",), soft=False), (b"item:a",), channel="elsewhere")
        )
        a.data.versions["a"] = 1
        assert b.statistics.applied == 0
        await a.cache.invalidate("other")
        await eventually(lambda: agreed(a, b) and b.statistics.applied == 2, "both purges", seconds=5)
        assert b.statistics.purges["missed"] == 2
        await never_stale([a, b], 1, seconds=0)


async def test_messages_in_any_order_are_applied_in_the_order_of_the_log(redis_server: Valkey) -> None:
    """Late and shuffled copies of forty purges leave both replicas where the log is, and nothing stale."""
    chance = random.Random(7)
    async with listening(redis_server) as ((a, b), wire):
        await filled_everywhere(a, b)
        copies: list[bytes] = []
        for number in range(40):
            await a.cache.invalidate(f"item:{'a' if number % 4 == 0 else number}")
            copies.append(wire.heard())
            for message in chance.sample(copies, min(3, len(copies))):
                wire.say(message)
        a.data.versions["a"] = 1
        await written(a)
        await eventually(lambda: agreed(a, b), "the log's end")
        assert a.statistics.resets == b.statistics.resets
        await never_stale([a, b], 2, seconds=0)


async def test_a_message_of_an_older_term_is_ignored(redis_server: Valkey) -> None:
    """What an earlier life of the log had to say concerns nobody."""
    async with listening(redis_server) as ((a, b), wire):
        await written(a)
        old = wire.heard()
        redis_server.execute("FLUSHALL")
        await a.cache.invalidate("other")
        wire.heard()
        await eventually(lambda: agreed(a, b) and a.statistics.term == 2, "the new term")
        await a.ask()
        await a.written()
        assert_hit(await b.ask())
        before = beats(redis_server)
        for seq in (1, 2, 3, 50):
            wire.say(line_of(old, seq=seq))
        await written(a, "other")
        await eventually(lambda: agreed(a, b), "the purge behind them")
        assert_hit(await b.ask())
        # The purge, and nothing that those messages would have made anybody ask.
        assert beats(redis_server) - before <= 2


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        b"\xff\x00\x80",
        b"1 2 3",
        b"1 x y z u v\npayload",
        b"1 1 a 1 b 9" + b"9" * 400 + b"\nx",
        b"1 " + b"9" * 5000 + b" a 1 b 1\nx",
        b"2 1 a 1 b 1 what is new\n" + b"x",
        b"1 99 nonce 1 n 1\n" + encode_payload(("item:a",), soft=False),
        b"1 -1 a -1 b -1\n",
    ],
)
async def test_bytes_that_are_no_line_are_answered_by_the_log(redis_server: Valkey, message: bytes) -> None:
    """Garbage, a later format, a term that nobody knows: the log is asked, nothing breaks, and purges go on arriving."""
    async with listening(redis_server) as ((a, b), wire):
        await filled_everywhere(a, b)
        wire.say(message)
        await written(a)
        await eventually(lambda: agreed(a, b), "the purge", seconds=5)
        await never_stale([a, b], 1, seconds=0)
        assert b.statistics.purges.get("applied", 0) + b.statistics.purges.get("missed", 0) == 1
        assert a.statistics.term == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\xc1",
        msgpack.packb([2, ["item:a"], False, False, []]),
        msgpack.packb({"tags": ["item:a"]}),
        msgpack.packb(7),
        msgpack.packb([1, "item:a", False, False, []]),
        msgpack.packb([1, [1, 2], False, False, []]),
        b"\x91" * 5000,
    ],
)
async def test_a_purge_of_a_later_release_purges_everything(redis_server: Valkey, payload: bytes) -> None:
    """What it names cannot be read here; by message or in the log, everything is given up that it could mean."""
    async with listening(redis_server) as ((a, b), wire):
        await filled_everywhere(a, b)
        await written(a, "other")
        known = wire.heard()
        await eventually(lambda: agreed(a, b), "the purge")
        assert_hit(await b.ask())
        run_by_hand(redis_server, call_of(a, payload, (b"who knows",)))
        await eventually(lambda: agreed(a, b) and b.statistics.applied == 2, "the line", seconds=5)
        assert decode_line(line_of(known, payload=payload)).tags == (ALL,)
        assert_miss(await b.ask())


async def test_a_number_with_another_nonce_gives_everything_up(redis_server: Valkey) -> None:
    """The log was rolled back and written again: a number that was read before means something else now."""
    async with listening(redis_server) as ((a, b), wire):
        await written(a)
        message = wire.heard()
        await eventually(lambda: agreed(a, b), "the purge")
        await filled_everywhere(a, b)
        generation = b.statistics.generation
        wire.say(line_of(message, nonce="another"))
        await eventually(lambda: b.statistics.generation > generation, "the end of its trust")
        await eventually(lambda: agreed(a, b), "a lease again", seconds=5)
        assert b.statistics.applied == 1


async def test_a_forged_next_line_is_found_out(redis_server: Valkey) -> None:
    """A number that the log has not given: the server opens a new term when it hears of it, and all purges count."""
    async with listening(redis_server) as ((a, b), wire):
        await written(a)
        message = wire.heard()
        await eventually(lambda: agreed(a, b), "the purge")
        wire.say(line_of(message, seq=2, nonce="forged", payload=encode_payload(("nothing",), soft=False)))
        await eventually(lambda: a.statistics.applied == b.statistics.applied == 2, "the forged line")
        await written(a)
        await eventually(lambda: agreed(a, b) and a.statistics.term == 2, "a new term", seconds=5)
        await never_stale([a, b], 2, seconds=0)


async def test_purges_come_by_message_within_milliseconds(redis_server: Valkey) -> None:
    """With heartbeats ten seconds apart, a hundred purges are applied elsewhere as they are made."""
    async with listening(redis_server, 4) as (nodes, _):
        for number in range(100):
            await nodes[number % 4].cache.invalidate(f"item:{number}")
            await eventually(lambda: agreed(*nodes), "the purge everywhere", seconds=2)
        assert sum(node.statistics.purges.get("applied", 0) for node in nodes) == 300
        assert sum(node.statistics.purges.get("missed", 0) for node in nodes) == 0


async def test_a_message_that_is_larger_than_any_writer_makes_asks_the_log(redis_server: Valkey) -> None:
    """It is not read: what the log itself has is applied, whatever the message says."""
    async with listening(redis_server) as ((a, b), wire):
        await filled_everywhere(a, b)
        run_by_hand(
            redis_server, call_of(a, encode_payload(("item:a",), soft=False), (b"item:a",), channel="elsewhere")
        )
        before, applied = beats(redis_server), b.statistics.applied
        wire.say(b"1 9 another 9 nonce 9\n" + b"\x91" * 20_000_000)
        await eventually(lambda: agreed(a, b) and b.statistics.applied > applied, "the line of the log", seconds=5)
        assert beats(redis_server) > before
        assert a.statistics.term == b.statistics.term == 1
        assert_miss(await b.ask())


async def test_the_largest_line_of_an_earlier_release_comes_by_message(redis_server: Valkey) -> None:
    """It has 8,000 tags in one line, and names each of them."""
    async with listening(redis_server) as ((a, b), _):
        await filled_everywhere(a, b)
        tags = tuple(f"other:{number}" for number in range(MOST_TAGS))
        payload = msgpack.packb([1, tags, False, False, []])
        run_by_hand(redis_server, call_of(a, payload, tuple(map(str.encode, tags))))
        await eventually(lambda: agreed(a, b) and b.statistics.applied == 1, "the purge", seconds=5)
        assert_hit(await b.ask())
        assert b.statistics.purges["applied"] == 1


async def test_what_was_missed_is_read_page_by_page(redis_server: Valkey) -> None:
    """A replica that heard nothing of fifty thousand tags, in lines as earlier releases write them, keeps the rest."""
    async with listening(redis_server) as ((a, b), wire):
        await filled_everywhere(a, b)
        resets = b.statistics.resets
        for first in range(0, 6 * MOST_TAGS, MOST_TAGS):
            tags = tuple(f"tag:{number}" for number in range(first, first + MOST_TAGS))
            payload = encode_payload(tags, soft=False)
            run_by_hand(redis_server, call_of(a, payload, tuple(map(str.encode, tags)), channel="elsewhere"))
        wire.say(b"no message")
        await eventually(lambda: agreed(a, b) and b.statistics.applied == 6, "the end of the log", seconds=10)
        assert b.statistics.resets == resets
        assert_hit(await b.ask())
