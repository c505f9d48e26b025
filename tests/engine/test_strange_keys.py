"""Something else was written under the log's keys: it begins anew, and nobody has to mend it by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.core.log_types import Ask, Missed, Reset
from tests.engine.asking import Asking
from tests.helpers.fleet import fleet
from tests.helpers.trouble import QUICK, agreed, eventually, filled_everywhere, never_stale, written
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

KEYS = log_keys("cacheinval")
FIELDS = (
    "term", "tnonce", "seq", "nonce", "run", "floor", "mark", "marked", "life", "opened", "pruned", "eighths", "filled",
    "widest",
)  # fmt: skip
VALUES = ("", "junk", "-1", "1.5", "nan", "1e308", "9" * 20, str(2**53), "x" * 1000, "a b", "\x00", None)
TYPES: dict[str, Callable[[Valkey, str], object]] = {
    "string": lambda server, key: server.execute("SET", key, "x"),
    "list": lambda server, key: server.execute("LPUSH", key, "x"),
    "hash": lambda server, key: server.execute("HSET", key, "a", "b"),
    "set": lambda server, key: server.execute("SADD", key, "x"),
    "sorted set": lambda server, key: server.execute("ZADD", key, "1", "a"),
    "stream": lambda server, key: server.execute("XADD", key, "7-7", "a", "b"),
}


async def _goes_on(a: Asking, b: Asking) -> None:
    """A purge of one is read by the other, with what has come before or after a new beginning."""
    for _ in range(2):
        line = (await a.purge("a")).line
        assert line is not None
        a.ask = Ask(line.term, line.seq, line.nonce)
        reply = (await b.log.run(b.ask, "b")).reply
        assert isinstance(reply, Reset) or (isinstance(reply, Missed) and reply.lines[-1].nonce == line.nonce)
        b.ask = a.ask
    # Whatever was, the second is a line like any other.
    assert isinstance(reply, Missed)


async def _both(server: Valkey) -> tuple[Asking, Asking]:
    a, b = Asking(server, 30.0), Asking(server, 30.0)
    await a.heartbeat("a")
    await b.heartbeat("b")
    await _goes_on(a, b)
    return a, b


@pytest.mark.parametrize("value", VALUES, ids=[repr(value)[:12] for value in VALUES])
@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_of_the_state_holds_something_else(redis_server: Valkey, field: str, value: str | None) -> None:
    """Text, a number that is none of the script's, nothing at all."""
    a, b = await _both(redis_server)
    state = KEYS.state.decode()
    if value is None:
        redis_server.execute("HDEL", state, field)
    else:
        redis_server.execute("HSET", state, field, value)
    await _goes_on(a, b)
    await a.log.close()
    await b.log.close()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["state", "log", "tags", "acks"])
async def test_a_key_is_of_another_type(redis_server: Valkey, name: str, kind: str) -> None:
    """Or of its own type, with other contents."""
    a, b = await _both(redis_server)
    key = getattr(KEYS, name).decode()
    redis_server.execute("DEL", key)
    TYPES[kind](redis_server, key)
    await _goes_on(a, b)
    await a.log.close()
    await b.log.close()


@pytest.mark.parametrize("ident", ["3-0", "999999-0", "*"])
async def test_a_line_that_nobody_has_counted_stands_in_the_way_of_none(redis_server: Valkey, ident: str) -> None:
    """The log would take no line of a lower number."""
    a, b = await _both(redis_server)
    redis_server.execute("XADD", KEYS.log.decode(), ident, "n", "x", "m", "y")
    await _goes_on(a, b)
    await a.log.close()
    await b.log.close()


async def test_a_line_that_is_longer_than_any_is_not_handed_out(redis_server: Valkey) -> None:
    """Who has not read it starts again: a reply of that size would not come in time, however often it is asked for."""
    a, b = await _both(redis_server)
    state: Any = redis_server.client.hgetall(KEYS.state.decode())
    number = int(state["seq"]) + 1
    redis_server.execute("XADD", KEYS.log.decode(), f"{number}-0", "n", "forged", "m", "x" * 60_000_000)
    redis_server.execute("HSET", KEYS.state.decode(), "seq", number, "nonce", "forged")
    for reader in (a, b):
        reply = (await reader.log.run(reader.ask, "a")).reply
        assert isinstance(reply, Reset)
        reader.ask = Ask(reply.term, reply.seq, reply.nonce)
    await _goes_on(a, b)
    await a.log.close()
    await b.log.close()


async def test_a_user_who_may_not_read_a_key_loses_nobody_the_log(redis_server: Valkey) -> None:
    """What is refused for another reason says so, and opens no term."""
    a, b = await _both(redis_server)
    url = redis_server.add_user("blind", "any", "~*", "&*", "+@all", "-zscore")
    async with fleet(url, 1, **QUICK) as (node,):
        await eventually(lambda: not node.statistics.connected, "the refusal")
        assert node.statistics.term == 0
    reply = (await b.log.run(b.ask, "b")).reply
    assert not isinstance(reply, Reset)
    await a.log.close()
    await b.log.close()


@pytest.mark.parametrize("strange", ["a number", "a type", "a line"])
async def test_replicas_are_back_by_themselves(redis_server: Valkey, strange: str) -> None:
    """Nothing that a mutation has purged is served, then or later, and pages are hits again."""
    async with fleet(redis_server.url, 2, **QUICK) as (a, b):
        await eventually(lambda: agreed(a, b), "the log")
        await filled_everywhere(a, b)
        match strange:
            case "a number":
                redis_server.execute("HSET", KEYS.state.decode(), "filled", "junk")
            case "a type":
                redis_server.execute("DEL", KEYS.log.decode())
                redis_server.execute("SET", KEYS.log.decode(), "x")
            case _:
                redis_server.execute("XADD", KEYS.log.decode(), "999-0", "n", "x", "m", "y")
        await written(a)
        await eventually(lambda: agreed(a, b), "the purge")
        await never_stale([a, b], a.data.versions["a"])
        await filled_everywhere(a, b)
