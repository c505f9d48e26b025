"""`Cacheinval-Token`: a client that has written on one replica reads its own write on any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastapi_cacheinval.core.token import parse_token
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.http import Answer
from tests.helpers.trouble import filled_everywhere, never_stale
from tests.servers import Proxy, Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def far_apart(server: Valkey, **options: Any) -> AsyncIterator[tuple[Node, Node, Proxy]]:
    """A, and B whose heartbeats are ten seconds apart and whose messages can be kept back."""
    given = {"staleness_bound": 30, "read_your_writes": True, **options}
    with tcp_proxy(server.port) as proxy:
        async with fleet(server.url, 1, **given) as (a,), fleet(proxy.url, 1, data=a.data, first=1, **given) as (b,):
            await filled_everywhere(a, b)
            yield a, b, proxy
            proxy.heal()


def token(answer: Answer) -> str:
    """What a mutation has told its client."""
    return answer.headers["cacheinval-token"]


async def test_a_mutation_answers_with_a_token_and_its_reader_waits_for_the_purge(redis_server: Valkey) -> None:
    """B has not heard of the purge: with the token it reads the log first, without it serves what it has."""
    async with far_apart(redis_server) as (a, b, _):
        # Nobody is told of purges any more, so that only who asks knows.
        redis_server.execute("ACL", "SETUSER", "default", "-publish")
        answer = await a.ask(method="PUT")
        redis_server.execute("ACL", "SETUSER", "default", "+publish")
        assert answer.headers["cacheinval-purge"] == "done"
        parsed = parse_token(token(answer).encode())
        assert parsed is not None
        assert parsed.seq == 1
        assert parsed.term.number == a.statistics.term
        old = await b.ask()
        assert_hit(old)
        assert b'"version":0' in old.body
        fresh = await b.ask(headers={"cacheinval-token": token(answer)})
        assert_miss(fresh)
        assert b'"version":1' in fresh.body
        assert b.statistics.applied == 1


async def test_a_token_costs_nothing_where_it_has_been_read(redis_server: Valkey) -> None:
    """A replica that has read as far answers from its L1, and asks nobody."""
    async with far_apart(redis_server) as (a, b, _):
        answer = await a.ask(method="PUT")
        await eventually(lambda: b.statistics.applied == 1, "the purge")
        headers = {"cacheinval-token": token(answer)}
        before = b.l2("write")
        assert b'"version":1' in (await b.ask(headers=headers)).body
        await b.written(before + 1)
        commands = redis_server.info("stats")["total_commands_processed"]
        assert_hit(await b.ask(headers=headers))
        assert_hit(await b.ask(headers=headers, method="HEAD"))
        # The question itself is one.
        assert redis_server.info("stats")["total_commands_processed"] == commands + 1


async def test_a_replica_that_cannot_read_as_far_lets_the_handler_answer(redis_server: Valkey) -> None:
    """Redis is out of reach for B: `detail=behind`, nothing of what it has, and nothing is stored."""
    async with far_apart(redis_server, redis_timeout=0.3) as (a, b, proxy):
        proxy.black_hole()
        answer = await a.ask(method="PUT")
        before = b.data.forwards
        behind = await b.ask(headers={"cacheinval-token": token(answer)})
        assert behind.cache is not None
        assert behind.cache.detail == "behind"
        assert not behind.cache.stored
        assert b'"version":1' in behind.body
        assert b.data.forwards == before + 1
        # It still holds its lease, and has promised nothing to anybody without the token.
        assert b'"version":0' in (await b.ask()).body


@pytest.mark.parametrize(
    "value", ["", "x", "1", "1.a", "1.a.", "-1.a.1", "1.a.1.1", "1.A.1", "9" * 400, "1.a.1, 1.a.2", "\xff", "1.a.1 "]
)
async def test_what_is_no_token_is_ignored(redis_server: Valkey, value: str) -> None:
    """A client's nonsense is no error and no detour."""
    async with fleet(redis_server.url, 1, read_your_writes=True) as (a,):
        await a.ask()
        await a.written()
        commands = redis_server.info("stats")["total_commands_processed"]
        assert_hit(await a.ask(headers={"cacheinval-token": value}))
        assert redis_server.info("stats")["total_commands_processed"] <= commands + 2


@pytest.mark.parametrize("value", ["999.abc.1", "1.abc.999", "999999999999999.f.999999999999999"])
async def test_a_forged_token_costs_one_question_and_harms_nobody(redis_server: Valkey, value: str) -> None:
    """A place that the log has never had: the log is asked once, and the stored response is served; no new term."""
    async with fleet(redis_server.url, 2, read_your_writes=True) as (a, b):
        await filled_everywhere(a, b)
        for _ in range(3):
            answer = await b.ask(headers={"cacheinval-token": value})
            assert_hit(answer)
        assert b.statistics.term == 1
        assert b.statistics.resets == 1


async def test_a_token_of_an_earlier_term_is_as_good_as_read(redis_server: Valkey) -> None:
    """A new term has made everything unusable that the purge could have been about."""
    async with fleet(redis_server.url, 2, read_your_writes=True) as (a, b):
        await filled_everywhere(a, b)
        answer = await a.ask(method="PUT")
        redis_server.execute("FLUSHALL")
        await a.cache.invalidate("other")
        await eventually(lambda: b.statistics.term == 2, "the new term")
        got = await b.ask(headers={"cacheinval-token": token(answer)})
        assert b'"version":1' in got.body
        assert got.cache is not None
        assert got.cache.detail != "behind"


async def test_without_the_setting_there_are_no_tokens(redis_server: Valkey) -> None:
    """Off by default: no header, and one that comes in changes nothing."""
    async with fleet(redis_server.url, 1) as (a,):
        answer = await a.ask(method="PUT")
        assert "cacheinval-token" not in answer.headers
        await a.ask()
        assert_hit(await a.ask(headers={"cacheinval-token": "1.a.999"}))


async def test_a_queued_purge_gives_no_token(redis_server: Valkey) -> None:
    """There is no number yet that anybody could read up to."""
    async with far_apart(redis_server) as (_, b, proxy):
        proxy.refuse()
        proxy.reset()
        answer = await b.ask(method="PUT")
        assert answer.headers["cacheinval-purge"] == "queued"
        assert "cacheinval-token" not in answer.headers
        await never_stale([b], 1, seconds=0)


async def test_read_your_writes_over_many_writes(redis_server: Valkey) -> None:
    """A client that writes here and reads there, fifty times with messages kept back at random, never reads the past."""
    async with fleet(redis_server.url, 3, read_your_writes=True) as nodes:
        for number in range(50):
            writer, reader = nodes[number % 3], nodes[(number + 1) % 3]
            answer = await writer.ask(method="PUT")
            # At once: the message has had no chance yet.
            got = await reader.ask(headers={"cacheinval-token": token(answer)})
            assert f'"version":{number + 1}' in got.body.decode()


async def test_many_readers_with_a_token_share_one_question(redis_server: Valkey) -> None:
    """Two hundred requests that are all ahead of the replica cost the log a few questions, not two hundred."""
    async with far_apart(redis_server) as (a, b, _):
        redis_server.execute("ACL", "SETUSER", "default", "-publish")
        answer = await a.ask(method="PUT")
        redis_server.execute("ACL", "SETUSER", "default", "+publish")
        scripts = redis_server.info("commandstats")["cmdstat_evalsha"]["calls"]
        calls = [b.call(headers={"cacheinval-token": token(answer)}) for _ in range(200)]
        answers = await asyncio.gather(*(call.answer() for call in calls))
        assert all(b'"version":1' in each.body for each in answers)
        # Two at most for the log, and those of the fill.
        assert redis_server.info("commandstats")["cmdstat_evalsha"]["calls"] - scripts <= 5
        assert a.data.forwards == 2
