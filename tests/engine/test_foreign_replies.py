"""Replies of another command, of a proxy or of a module that knows the command otherwise: each is an outage, at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.bus.fleet import RedisFleet
from fastapi_cacheinval.bus.redis import RedisLog, Sight
from fastapi_cacheinval.connections.client import Client
from fastapi_cacheinval.connections.topology import Topology
from fastapi_cacheinval.connections.urls import by_url
from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.core.log_types import Ask, LogEntry, Missed, Page, Term
from fastapi_cacheinval.errors import LogUnavailable, TierUnavailable
from fastapi_cacheinval.ports.l2_store import Found, Lock
from fastapi_cacheinval.ports.log import Answer, Proposal, Standing
from fastapi_cacheinval.stores.redis import _READ, RedisStore
from fastapi_cacheinval.stores.roll import RedisRoll
from tests.engine.asking import Asking
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

_WORDS: list[Any] = [None, 0, 1, -1, 5.5, True, b"", b"OK", b"\xff", b"1 2 3", b"got", b"found", b"0 0 x 0 x 0 0 -1 0"]
_MADE: list[Any] = [[], {}, set(), (), *([word] for word in _WORDS), *([word, 5] for word in _WORDS)]
_MADE += (
    [[b"found", word, 5] for word in _WORDS]
    + [[b"found", b"x", word] for word in _WORDS]
    + [[word] * 4 for word in _WORDS]
)
_MADE += (
    [[[word], [word]] for word in _WORDS]
    + [{b"a": word} for word in _WORDS]
    + [[1, 2, [word, word]] for word in _WORDS]
)
REPLIES = _WORDS + _MADE

_TERM = Term(1, "x")
_LINE = LogEntry(_TERM, 1, "n", ("t",), False, 0.0)


class _Answering:
    """A client whose server gives one reply to everything."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    async def script(self, *_: Any, **__: Any) -> Any:
        return self._reply

    command = about = script


def _log(client: Client) -> RedisLog:
    return RedisLog(client, log_keys("app"), bound=2.0, life=lambda: 60.0, sight=Sight())


CALLS: dict[str, tuple[Callable[[Client], Awaitable[Any]], tuple[type, ...]]] = {
    "read": (lambda client: RedisStore(client, "app", quiet=1.0).read(b"k"), (Found, type(None))),
    "claim": (lambda client: RedisStore(client, "app", quiet=1.0).claim(b"k", "me", 1.0, b""), (Found, Lock)),
    "renew": (lambda client: RedisStore(client, "app", quiet=1.0).renew(b"k", "me", 1.0), (bool,)),
    "release": (lambda client: RedisStore(client, "app", quiet=1.0).release(b"k", "me"), (type(None),)),
    "roll": (lambda client: RedisRoll(client, "app").answer(b"a", b"b"), (dict,)),
    "heartbeat": (lambda client: _log(client).run(Ask(_TERM, 0, "x"), "me"), (Answer,)),
    "purge": (lambda client: _log(client).run(Ask(_TERM, 0, "x"), "me", Proposal(("t",), soft=False)), (Answer,)),
    "page": (lambda client: _log(client).page(_TERM, 5), (Page, type(None))),
    "behind": (lambda client: _log(client).behind(_LINE), (Standing,)),
    "fleet": (lambda client: RedisFleet(client, "app", "app").read(), (Fleet,)),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_reply_of_another_kind_is_an_outage_at_most(name: str) -> None:
    """No reply makes a request fail: each is read as what it says, or raised as the tier's or the log's error."""
    call, kinds = CALLS[name]
    refused = 0
    for reply in REPLIES:
        try:
            read = await call(cast(Client, _Answering(reply)))
        except (TierUnavailable, LogUnavailable):
            refused += 1
            continue
        assert isinstance(read, kinds), (reply, read)
        if isinstance(read, Found):
            assert isinstance(read.data, bytes), reply
            assert isinstance(read.pttl_ms, int), reply
        if isinstance(read, dict):
            assert all(isinstance(part, bytes) for pair in read.items() for part in pair), reply
    assert refused or name in {"renew", "release"}


class _Shifted:
    """The topology of a client whose connections answer, from now on, each call with the reply to the one before."""

    def __init__(self, topology: Any, reply: Any) -> None:
        self._topology = topology
        self._reply = reply
        self.renewed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._topology, name)

    async def send_script(self, key: bytes, parts: Any) -> Any:
        reply = await self._topology.send_script(key, parts)
        if self.renewed:
            return reply
        reply, self._reply = self._reply, reply
        return reply

    async def renew(self, server: str) -> None:
        self.renewed = True
        await self._topology.renew(server)


@pytest.mark.parametrize("purges", [False, True])
async def test_the_reply_to_an_earlier_call_is_not_believed(redis_server: Valkey, purges: bool) -> None:
    """A connection that is one reply behind would renew a lease before a purge, or confirm one that is not written."""
    ours, theirs = Asking(redis_server, 2.0), Asking(redis_server, 2.0)
    await ours.heartbeat("a")
    await theirs.heartbeat("b")
    client = ours.log._client
    said: list[Any] = []

    async def heard(*arguments: Any) -> Any:
        said.append(await send(*arguments))
        return said[-1]

    send, client._topology.send_script = client._topology.send_script, heard  # type: ignore[assignment, method-assign]
    await ours.heartbeat("a")
    line = (await theirs.purge("b")).line
    assert line is not None
    shifted = _Shifted(client._topology, said[-1])
    client._topology = cast(Topology, shifted)
    if purges:
        answer = await ours.purge("a")
        assert answer.line is not None
        assert answer.line.seq > line.seq
    else:
        answer = await ours.log.run(ours.ask, "a")
        assert isinstance(answer.reply, Missed)
        assert answer.reply.lines[0].nonce == line.nonce
    assert shifted.renewed
    await ours.close()
    await theirs.close()


@pytest.mark.parametrize("claims", [False, True])
async def test_what_is_stored_under_another_key_is_not_taken_for_this_one(redis_server: Valkey, claims: bool) -> None:
    """A connection that is one reply behind is closed at once: it would be a miss for all pages from then on."""
    client = by_url(redis_server.url, 5.0, 2**20)()
    store = RedisStore(client, "app", quiet=1.0)
    for key in (b"a", b"b"):
        await store.write(key, key * 40, 60_000)
    said = [await client.script(_READ, store._keys(b"a")[:1], ())]
    shifted = _Shifted(client._topology, said[0])
    client._topology = cast(Topology, shifted)
    found = await (store.claim(b"b", "me", 1.0, b"") if claims else store.read(b"b"))
    assert isinstance(found, Found)
    assert found.data == b"b" * 40
    assert shifted.renewed
    await client.close()


def test_a_loop_that_is_none_of_asyncios_is_named() -> None:
    """As under `hypercorn -k trio`."""
    with pytest.raises(ConfigurationError, match=r"needs asyncio.*-k trio"):
        HTTPCache().start().send(None)
