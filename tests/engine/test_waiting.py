"""What the log says of who has read a line, when it cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fastapi_cacheinval.bus.call import Call, log_keys
from fastapi_cacheinval.bus.looks import WAIT_LUA
from fastapi_cacheinval.bus.script import LUA
from tests.servers.valkey import valkey

_KEYS = log_keys("waiting")
_BOUND = 0.2


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with valkey() as server, redis.Redis.from_url(server.unix_url) as client:
        yield client


def _run(client: redis.Redis, replica: str, seq: int, nonce: str, *, payload: bytes = b"") -> None:
    call = Call(
        replica=replica,
        term=1,
        term_nonce="f0",
        seq=seq,
        nonce=nonce,
        fresh=f"f{seq + len(payload)}",
        bound=_BOUND,
        channel=_KEYS.channel,
        payload=payload,
        tags=(b"t",) if payload else (),
    )
    client.eval(LUA, 4, *_KEYS[:4], *call.arguments())


def _behind(client: redis.Redis, seq: int = 1) -> int:
    return client.eval(WAIT_LUA, 2, _KEYS.state, _KEYS.acks, 1, "f0", seq, int(_BOUND * 1_000_000))[0]


def _written(client: redis.Redis) -> None:
    """A log of one line, which both replicas have read, and in which nothing of an earlier term can matter."""
    client.flushall()
    call = Call(replica="a", term=0, term_nonce="", seq=0, nonce="", fresh="f0", bound=_BOUND, channel=_KEYS.channel)
    client.eval(LUA, 4, *_KEYS[:4], *call.arguments())
    client.hset(_KEYS.state, "opened", 0)
    _run(client, "a", 0, "f0", payload=b"p")
    _run(client, "b", 0, "f0")


def test_it_counts_the_replicas_that_have_not_said_that_they_read_the_line(client: redis.Redis) -> None:
    """A replica has read a line when it asks from behind it."""
    _written(client)
    assert _behind(client) == 2
    _run(client, "a", 1, "f1")
    assert _behind(client) == 1
    _run(client, "b", 1, "f1")
    assert _behind(client) == 0


@pytest.mark.parametrize(
    "happens",
    [
        lambda client: client.delete(_KEYS.state),
        lambda client: client.delete(_KEYS.acks),
        lambda client: client.flushall(),
        lambda client: client.execute_command("DEBUG", "CHANGE-REPL-ID"),
    ],
    ids=["the state is lost", "the acknowledgements are lost", "all is lost", "another server has taken over"],
)
def test_who_cannot_know_says_that_somebody_may_be_behind(
    client: redis.Redis, happens: Callable[[redis.Redis], Any]
) -> None:
    """Where acknowledgements may be missing, their replicas may hold leases that nobody sees."""
    _written(client)
    _run(client, "a", 1, "f1")
    _run(client, "b", 1, "f1")
    assert _behind(client) == 0
    happens(client)
    assert _behind(client) > 0
