"""Each guarantee of the README in its plainest form; the other directories look for what might break it."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from fastapi.security import OAuth2PasswordBearer

from fastapi_cacheinval import CallerDependentRoute, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop, ask, scope_of, until

pytestmark = pytest.mark.anyio

Token = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]


def user(token: Token) -> str:
    if token == "revoked":
        raise HTTPException(401)
    return token


async def lifespan_error(app: Any) -> None:
    """Start the app as a server does, which raises what it could not start with."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        """Nobody listens."""

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_g1_a_caller_never_gets_another_callers_response() -> None:
    """Each gets its own, a hit included; a revoked token and no token get 401; an unproved route does not start."""
    shop = Shop()

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=user)])
    async def mine(name: Annotated[str, Depends(user)]) -> str:
        return name

    for _ in range(2):
        for name in ("alice", "bob"):
            answer = await shop.ask("/mine", headers=bearer(name))
            assert answer.body == f'"{name}"'.encode()
    assert_hit(await shop.ask("/mine", headers=bearer("alice")))
    assert (await shop.ask("/mine", headers=bearer("revoked"))).status_code == 401
    assert (await shop.ask("/mine")).status_code == 401

    refused = Shop()

    @refused.app.get("/mine", dependencies=[cached(ttl=60)])
    async def unproved(name: Annotated[str, Depends(user)]) -> str:
        return name

    answer = await refused.ask("/mine", headers=bearer("alice"))
    assert answer.status_code == 500
    assert b"partition_by" in answer.body
    with pytest.raises(CallerDependentRoute, match="/mine"):
        await lifespan_error(refused.app)


def shop_with_prices() -> tuple[Shop, dict[int, int]]:
    """A price that can be read and written, with a handler that can be stopped between reading and answering."""
    shop = Shop()
    prices = {42: 30}

    @shop.app.get("/products/{number}", dependencies=[cached(ttl=60, tags=["product:{number}"])])
    async def read(number: int) -> int:
        shop.count()
        return prices[number]

    @shop.app.put("/products/{number}", dependencies=[invalidates("product:{number}")])
    async def write(number: int, price: int) -> int:
        prices[number] = price
        return price

    return shop, prices


async def test_g2_your_own_write_is_visible() -> None:
    """No request after the mutation's answer is given what the mutation invalidated, however the id is spelled."""
    shop, _ = shop_with_prices()
    for path in ("/products/42", "/products/042", "/products/42?utm_source=x"):
        assert (await shop.ask(path)).body == b"30"
    written = await shop.ask("/products/42?price=27", method="PUT")
    assert written.headers["cacheinval-purge"] == "done"
    for path in ("/products/42", "/products/042", "/products/42?utm_source=x"):
        assert (await shop.ask(path)).body == b"27"


async def test_g4_a_fill_that_began_before_a_purge_is_never_served_after_it() -> None:
    """The old price that a slow handler read goes to who asked before the purge, and to nobody after it."""
    shop = Shop()
    price = 30
    may_answer = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        shop.count()
        seen = price
        await may_answer.wait()
        return seen

    before = shop.call()
    await until(lambda: shop.calls == 1)
    price = 27
    await shop.cache.invalidate("price")
    after = shop.call()
    may_answer.set()
    assert (await before.answer()).body == b"30"
    assert (await after.answer()).body == b"27"
    assert (await shop.ask()).body == b"27"


async def test_g5_a_fresh_front_hit_awaits_nothing_before_its_answer() -> None:
    """The whole answer is given in one step of the coroutine: neither routing nor any other task runs."""
    shop, _ = shop_with_prices()
    await shop.ask("/products/42")
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("a hit reads nothing")

    waiting = shop.app(scope_of("/products/42"), receive, send).__await__()
    with pytest.raises(StopIteration):
        next(waiting)
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    assert shop.calls == 1


async def test_g7_one_forward_for_a_crowd() -> None:
    """A hundred at once on a cold key: the handler runs once, and all have its answer."""
    shop = Shop()
    may_answer = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        number = shop.count()
        await may_answer.wait()
        return number

    crowd = [shop.call() for _ in range(100)]
    await until(lambda: shop.calls == 1)
    may_answer.set()
    answers = [await call.answer() for call in crowd]
    assert {answer.body for answer in answers} == {b"1"}
    assert sum(answer.cache is not None and answer.cache.collapsed for answer in answers) == 99


async def test_g8_nothing_is_added_to_what_is_not_cached() -> None:
    """A stream's first chunk comes while the second is not made, fields and background tasks are the app's own."""
    shop = Shop()
    may_go_on = asyncio.Event()
    done: list[str] = []

    @shop.app.get("/stream")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            await may_go_on.wait()
            yield b"two"

        tasks.add_task(done.append, "task")
        return StreamingResponse(chunks(), media_type="text/plain", background=tasks)

    call = shop.call("/stream")
    await until(lambda: call.body == b"one")
    may_go_on.set()
    answer = await call.answer()
    assert answer.body == b"onetwo"
    assert done == ["task"]
    assert sorted(answer.headers) == ["content-type"]


async def test_the_raw_request_is_never_taken_for_shared() -> None:
    """A handler that is handed the request can read anything, so it needs the author's word."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(request: Request) -> str:
        return request.headers.get("x", "")

    assert (await ask(shop.app)).status_code == 500


async def test_a_response_is_forwarded_again_after_its_lifetime() -> None:
    """Fresh for its ttl, and then no longer."""
    shop, _ = shop_with_prices()
    assert_miss(await shop.ask("/products/42"))
    shop.clock.tick(59)
    assert_hit(await shop.ask("/products/42"))
    shop.clock.tick(2)
    assert_miss(await shop.ask("/products/42"))
