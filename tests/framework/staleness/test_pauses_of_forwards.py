"""After a forward that failed a stale response stands in for a while without another forward."""

# No postponed annotations: a dependency of a test is its own.

from typing import Annotated, Any

import pytest
from fastapi import Header, HTTPException, Response

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio

RULE: dict[str, Any] = {"ttl": 60, "jitter": 0, "stale_if_error": 3600, "tags": ["it"]}
DOWN = HTTPException(503)


def _who(x_who: Annotated[str, Header()] = "") -> str:
    return x_who


def _shop(failure: Exception, **policy: Any) -> tuple[Shop, list[bool]]:
    """An app that fails while the switch is on."""
    shop, down = Shop(), [False]

    @shop.app.get("/", dependencies=[cached(**{**RULE, **policy})])
    async def read() -> int:
        count = shop.count()
        if down[0]:
            raise failure
        return count

    return shop, down


async def _failed_once(shop: Shop, down: list[bool], **more: Any) -> None:
    """Filled, gone stale, and one forward has failed."""
    await shop.ask(**more)
    down[0] = True
    shop.clock.tick(100)
    answer = await shop.ask(**more)
    assert answer.cache is not None
    assert answer.cache.fwd_status is not None
    assert shop.calls == 2


@pytest.mark.parametrize("failure", [DOWN, RuntimeError("down")])
async def test_the_pause_doubles_with_each_failure(failure: Exception) -> None:
    """One second, two, four: so many requests as there are, and one forward after each pause."""
    shop, down = _shop(failure)
    await _failed_once(shop, down)
    for calls, pause in ((2, 1), (3, 2), (4, 4), (5, 8)):
        shop.clock.tick(pause - 0.1)
        for _ in range(3):
            answer = await shop.ask()
            assert_stale(answer)
            assert answer.body == b"1"
            assert answer.cache is not None
            assert answer.cache.hit
        assert shop.calls == calls
        shop.clock.tick(0.2)
        assert_stale(await shop.ask())
        assert shop.calls == calls + 1


async def test_an_app_that_is_well_again_ends_the_pauses() -> None:
    """The next failure, of the new response, pauses for a second again."""
    shop, down = _shop(DOWN)
    await _failed_once(shop, down)
    shop.clock.tick(1.1)
    await shop.ask()
    down[0] = False
    shop.clock.tick(2.1)
    assert_miss(await shop.ask())
    assert_hit(await shop.ask())
    down[0] = True
    shop.clock.tick(100)
    await shop.ask()
    calls = shop.calls
    await shop.ask()
    assert shop.calls == calls
    shop.clock.tick(1.1)
    await shop.ask()
    assert shop.calls == calls + 1


async def test_a_retry_after_makes_the_pause_longer_for_all() -> None:
    """Where the response is proved the same for all."""
    shop, down = _shop(HTTPException(503, headers={"retry-after": "30"}))
    await _failed_once(shop, down)
    shop.clock.tick(29)
    await shop.ask()
    assert shop.calls == 2
    shop.clock.tick(2)
    await shop.ask()
    assert shop.calls == 3


async def test_a_retry_after_to_one_caller_is_not_for_the_others() -> None:
    """A guarded page is the same for all, and the app may have spoken of this caller's limit."""
    shop, down = _shop(HTTPException(503, headers={"retry-after": "30"}), guarded_by=_who)
    await _failed_once(shop, down)
    await shop.ask(headers={"x-who": "b"})
    assert shop.calls == 2
    shop.clock.tick(1.1)
    await shop.ask(headers={"x-who": "b"})
    assert shop.calls == 3


async def test_what_is_known_to_be_wrong_does_not_stand_in() -> None:
    """A hard purge ends the pause; so does the end of the window. A soft purge does not."""
    shop, down = _shop(DOWN, stale_if_error=101)
    await _failed_once(shop, down)
    await shop.cache.invalidate("it", soft=True)
    assert_stale(await shop.ask())
    assert shop.calls == 2
    await shop.cache.invalidate("it")
    assert (await shop.ask()).status_code == 503
    assert shop.calls == 3
    down[0] = False
    await shop.ask()
    down[0] = True
    shop.clock.tick(160.5)
    await shop.ask()
    shop.clock.tick(0.6)
    assert (await shop.ask()).status_code == 503


async def test_without_a_stale_response_each_request_goes_forward() -> None:
    """There is nothing to answer with."""
    shop, down = _shop(DOWN)
    down[0] = True
    for calls in (1, 2, 3):
        assert (await shop.ask()).status_code == 503
        assert shop.calls == calls


async def test_an_answer_that_is_no_failure_begins_no_pause() -> None:
    """A 429 is the word of the app: it reaches each client."""
    shop, down = _shop(HTTPException(429))
    await shop.ask()
    down[0] = True
    shop.clock.tick(100)
    for calls in (2, 3):
        assert (await shop.ask()).status_code == 429
        assert shop.calls == calls


async def test_variants_and_partitions_pause_apart() -> None:
    """Each stored response has its own."""
    shop, down = _shop(DOWN, partition_by=_who)
    await shop.ask(headers={"x-who": "b"})
    shop.calls = 0
    await _failed_once(shop, down, headers={"x-who": "a"})
    assert_stale(await shop.ask(headers={"x-who": "b"}))
    assert shop.calls == 3


async def test_by_headers_it_is_the_same() -> None:
    """Unless the client asks for more than the pause gives."""
    shop, down = Shop(middleware={"honour_headers": True}), [False]

    @shop.app.get("/")
    async def read(response: Response) -> int:
        count = shop.count()
        if down[0]:
            raise DOWN
        response.headers["cache-control"] = "max-age=60, stale-if-error=3600"
        return count

    await _failed_once(shop, down)
    assert_stale(await shop.ask())
    assert shop.calls == 2
    await shop.ask(headers={"cache-control": "no-cache"})
    assert shop.calls == 3
