"""`soft_timeout` and `hard_timeout`: clients of a slow handler have another answer, and the handler goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CachePolicy, ConfigurationError, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Answer, Call, Shop, settle, until

pytestmark = pytest.mark.anyio

RULE: dict[str, Any] = {"ttl": 60, "jitter": 0, "stale_if_error": 600, "soft_timeout": 1, "tags": ["it"]}


class Slow:
    """An app whose handler waits at a gate once it is closed."""

    def __init__(self, **policy: Any) -> None:
        self.shop = Shop()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.ended = 0

        @self.shop.app.get("/", dependencies=[cached(**{**RULE, **policy})])
        async def read() -> int:
            count = self.shop.count()
            try:
                await self.gate.wait()
            finally:
                self.ended += 1
            if self.error is not None:
                raise self.error
            return count

    async def gone_stale(self) -> None:
        """Filled, stale, and from now on slow."""
        await self.shop.ask()
        self.shop.clock.tick(100)
        self.gate.clear()

    async def begun(self, calls: int) -> Call:
        """A client whose request has come to the handler."""
        call = self.shop.call()
        await until(lambda: self.shop.calls == calls)
        await settle()
        return call


def _answer(call: Call) -> Answer:
    """What the client has, whether the app has returned or not."""
    return Answer(call.messages)


async def _whole(call: Call) -> Answer:
    await until(lambda: len(call.messages) > 1 and not call.messages[-1].get("more_body", False))
    return _answer(call)


async def test_a_slow_handler_gives_way_to_the_stale_response() -> None:
    """Not before the time; the handler goes on, and what it answers is stored."""
    slow = Slow()
    await slow.gone_stale()
    call = await slow.begun(2)
    slow.shop.clock.tick(0.9)
    await settle()
    assert not call.started
    slow.shop.clock.tick(0.2)
    answer = await _whole(call)
    assert (answer.status_code, answer.body) == (200, b"1")
    assert answer.cache is not None
    assert (answer.cache.detail, answer.cache.fwd, answer.cache.fwd_status) == ("slow", "stale", None)
    assert not call.task.done()
    slow.gate.set()
    await call.answer()
    assert len([each for each in call.messages if each["type"] == "http.response.start"]) == 1
    assert_hit(await slow.shop.ask())
    assert (await slow.shop.ask()).body == b"2"


async def test_those_who_wait_are_answered_as_well() -> None:
    """Each when its own time is over, and at once behind a handler that is known to be slow; one handler runs."""
    slow = Slow()
    await slow.gone_stale()
    first = await slow.begun(2)
    waiting = [slow.shop.call() for _ in range(3)]
    await until(lambda: slow.shop.cache.statistics().waiting == 3)
    slow.shop.clock.tick(1.1)
    for call in (first, *waiting):
        assert (await _whole(call)).body == b"1"
    late = slow.shop.call()
    await settle()
    slow.shop.clock.tick(1.1)
    assert (await _whole(late)).body == b"1"
    slow.shop.clock.tick(30)
    assert (await slow.shop.ask()).body == b"1"
    assert slow.shop.calls == 2
    slow.gate.set()
    await first.answer()


async def test_what_is_known_to_be_wrong_is_not_given() -> None:
    """A hard purge, and the end of `stale_if_error`, leave the client to wait; the purge may come meanwhile."""
    slow = Slow()
    await slow.gone_stale()
    call = await slow.begun(2)
    await slow.shop.cache.invalidate("it")
    slow.shop.clock.tick(2)
    await settle()
    assert not call.started
    slow.gate.set()
    assert (await call.answer()).body == b"2"


@pytest.mark.parametrize("soft", [None, 1])
async def test_past_the_hard_timeout_there_is_a_504(soft: float | None) -> None:
    """For the leader's client and for those who wait; what the handler answers later is stored."""
    slow = Slow(soft_timeout=soft, hard_timeout=3)
    slow.gate.clear()
    call = await slow.begun(1)
    waiting = slow.shop.call()
    await until(lambda: slow.shop.cache.statistics().waiting == 1)
    slow.shop.clock.tick(2.9)
    await settle()
    assert not call.started
    slow.shop.clock.tick(0.2)
    for each in (call, waiting):
        answer = await _whole(each)
        assert (answer.status_code, answer.body) == (504, b"")
        assert answer.cache is not None
        assert answer.cache.detail == "slow"
    assert slow.shop.calls == 1
    slow.gate.set()
    await call.answer()
    assert_hit(await slow.shop.ask())


async def test_past_the_hard_timeout_a_stale_response_is_better_than_a_504() -> None:
    """Without a soft timeout as well."""
    slow = Slow(soft_timeout=None, hard_timeout=3)
    await slow.gone_stale()
    call = await slow.begun(2)
    slow.shop.clock.tick(3.1)
    assert (await _whole(call)).body == b"1"
    slow.gate.set()
    await call.answer()


@pytest.mark.parametrize("error", [HTTPException(503), HTTPException(404), RuntimeError("late")])
async def test_a_handler_that_fails_after_its_time_disturbs_nobody(error: Exception) -> None:
    """The client has its answer already, and is sent no second one."""
    slow = Slow()
    await slow.gone_stale()
    call = await slow.begun(2)
    slow.shop.clock.tick(1.1)
    await _whole(call)
    slow.error = error
    slow.gate.set()
    assert (await call.answer()).body == b"1"
    assert len([each for each in call.messages if each["type"] == "http.response.start"]) == 1


async def test_a_client_that_leaves_with_its_answer_does_not_end_the_handler() -> None:
    """The server says that the client has gone once it has its answer."""
    slow = Slow()
    await slow.gone_stale()
    call = await slow.begun(2)
    slow.shop.clock.tick(1.1)
    await _whole(call)
    call.go_away()
    slow.shop.clock.tick(30)
    await settle()
    slow.gate.set()
    await call.answer()
    assert slow.ended == 2
    assert_hit(await slow.shop.ask())


@pytest.mark.parametrize("which", ["soft", "hard"])
async def test_behind_an_unknown_middleware_the_layers_pass_the_other_answer_on(which: str) -> None:
    """The cache works at the route there, and the answer goes through the layers as any other does."""
    slow = Slow(**({"hard_timeout": 3} if which == "hard" else {}))

    class Layer(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-layer"] = "passed"
            return response

    slow.shop.inside(Layer)
    if which == "soft":
        await slow.gone_stale()
    else:
        slow.gate.clear()
    call = await slow.begun(slow.shop.calls + 1)
    slow.shop.clock.tick(3.1)
    answer = await _whole(call)
    assert answer.status_code == (200 if which == "soft" else 504)
    assert answer.headers["x-layer"] == "passed"
    slow.gate.set()
    await call.answer()


async def test_a_quick_handler_is_not_touched() -> None:
    """Its own answer goes out, and no alarm rings afterwards."""
    slow = Slow(hard_timeout=3)
    assert_miss(await slow.shop.ask())
    slow.shop.clock.tick(100)
    answer = await slow.shop.ask()
    assert answer.body == b"2"
    slow.shop.clock.tick(30)
    await settle()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"soft_timeout": 1}, "set stale_if_error=3600 too"),
        ({"soft_timeout": 0, "stale_if_error": 1}, "more than 0"),
        ({"hard_timeout": 0}, "more than 0"),
        ({"hard_timeout": "1"}, "hard_timeout is seconds"),
        ({"soft_timeout": 2, "hard_timeout": 1, "stale_if_error": 1}, "not be shorter"),
    ],
)
def test_a_timeout_that_cannot_work_is_refused(fields: dict[str, Any], said: str) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigurationError, match=said):
        CachePolicy(ttl=60, **fields)
