"""A client leaves before it has its answer: an app that listens for that hears it, unless others are to have the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Response
from starlette.requests import Request

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import Answer, ask, pairs_of, scope_of, settle, until

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
TIMEOUT = 5.0


class Site:
    """An ASGI app behind the cache, by its headers or by a policy, on a clock of its own."""

    def __init__(self, mode: str, app: Any) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock, collapse_timeout=TIMEOUT)
        self.forwards = 0

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.forwards += 1
            await app(scope, receive, send)

        by_headers = mode == "headers"
        self.app = CacheMiddleware(
            counted if by_headers else in_a_route(counted, layered=mode == "layered"),
            cache=self.cache,
            honour_headers=by_headers,
        )

    def client(self, **more: Any) -> Client:
        """One GET begun."""
        return Client(self.app, scope_of(**more))


def in_a_route(app: Any, *, layered: bool) -> FastAPI:
    """The app as the response of a route with a policy, behind a middleware or not."""
    outer = FastAPI()

    class Sends(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

    @outer.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> Response:
        return Sends()

    async def through(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    if layered:
        outer.middleware("http")(through)
    return outer


class Client:
    """A client that leaves when it is told to; `strict` has the server refuse what is sent after that."""

    def __init__(self, app: Any, scope: Any) -> None:
        self._left = asyncio.Event()
        self._asked = False
        self.strict = False
        self.messages: list[Any] = []
        self.task = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.strict and self._left.is_set():
            raise OSError("nobody is there")
        self.messages.append(message)

    def leave(self, *, strict: bool = False) -> None:
        """Close the client's side."""
        self.strict = strict
        self._left.set()

    async def ended(self) -> None:
        """Wait for the app to return."""
        await asyncio.wait_for(self.task, PATIENCE)

    @property
    def answer(self) -> Answer:
        """What it was sent."""
        return Answer(self.messages)


MODES = pytest.mark.parametrize("mode", ["headers", "policy", "layered"])
HEADERS = pairs_of({"cache-control": "max-age=60"})


async def say(send: Any, body: bytes) -> None:
    """Answer at once, with what may be stored."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": body})


class LongPoll:
    """Answers when something happens, or when its client has left; `waits` is how it finds that out."""

    def __init__(self, waits: Callable[[Any, Any], Any]) -> None:
        self._waits = waits
        self.news = asyncio.Event()
        self.heard = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        news = asyncio.ensure_future(self.news.wait())
        left = asyncio.ensure_future(self._waits(scope, receive))
        await asyncio.wait({news, left}, return_when=asyncio.FIRST_COMPLETED)
        self.heard += left.done()
        for each in (news, left):
            each.cancel()
        await asyncio.gather(news, left, return_exceptions=True)
        await say(send, b"news" if self.news.is_set() else b"nothing new")


async def listening(_scope: Any, receive: Any) -> None:
    """Wait for the message, as Django does."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def asking(scope: Any, receive: Any) -> None:
    """Ask again and again, as with Starlette's request; the first message is the request's own."""
    request = Request(scope, receive)
    await request.body()
    while not await request.is_disconnected():
        await settle(1)


# Without the cache either, an app behind Starlette's middleware of that kind never learns by asking.
WAYS = pytest.mark.parametrize(
    ("mode", "waits"),
    [(mode, waits) for mode in ("headers", "policy", "layered") for waits in (listening, asking)][:-1],
)


@pytest.mark.parametrize(
    "headers",
    [{}, {"cache-control": "no-store"}, {"authorization": "Bearer x"}, {"range": "bytes=0-1"}, {"cookie": "a=b"}],
)
@WAYS
async def test_a_long_poll_hears_that_its_client_has_left(mode: str, waits: Any, headers: dict[str, str]) -> None:
    """Before it has begun to answer, whatever could be stored of its answer; and nothing is stored of it."""
    poll = LongPoll(waits)
    site = Site(mode, poll)
    client = site.client(headers=headers)
    await until(lambda: site.forwards)
    await settle()
    assert not client.task.done()
    client.leave()
    await client.ended()
    assert (poll.heard, site.cache.statistics().responses) == (1, 0)
    poll.news.set()
    assert (await ask(site.app, "/")).body == b"news"


@MODES
async def test_a_hundred_long_polls_whose_clients_have_left_all_end(mode: str) -> None:
    """Each of a key of its own."""
    poll = LongPoll(listening)
    site = Site(mode, poll)
    clients = [site.client(query_string=b"n=%d" % number, headers={"host": f"h{number}"}) for number in range(100)]
    await until(lambda: site.forwards == 100)
    for client in clients:
        client.leave()
    for client in clients:
        await client.ended()
    assert poll.heard == 100


@WAYS
async def test_who_waits_still_gets_the_answer(mode: str, waits: Any) -> None:
    """The first client leaves; the app hears nothing of it, because a second one is to be given what it answers."""
    poll = LongPoll(waits)
    site = Site(mode, poll)
    first = site.client()
    await until(lambda: site.forwards)
    second = site.client()
    await settle()
    first.leave()
    await settle()
    assert not first.task.done()
    poll.news.set()
    await second.ended()
    await first.ended()
    assert (second.answer.body, poll.heard, site.forwards) == (b"news", 0, 1)


@WAYS
async def test_nobody_is_waited_for_who_has_left_as_well(mode: str, waits: Any) -> None:
    """The first client leaves, then the one that waited: within the time that anybody waits the app hears it."""
    poll = LongPoll(waits)
    site = Site(mode, poll)
    first = site.client()
    await until(lambda: site.forwards)
    second = site.client()
    await settle()
    first.leave()
    await settle()
    second.task.cancel()
    await settle()
    site.clock.tick(TIMEOUT + 0.1)
    await first.ended()
    assert poll.heard == 1


@MODES
async def test_a_wait_that_is_given_up_is_led_by_the_next_who_asks(mode: str) -> None:
    """The key is free at once, and nobody is told that its answers cannot be shared."""
    poll = LongPoll(listening)
    site = Site(mode, poll)
    first = site.client()
    await until(lambda: site.forwards)
    first.leave()
    await first.ended()
    clients = [site.client() for _ in range(3)]
    await until(lambda: site.forwards == 2)
    await settle()
    poll.news.set()
    for client in clients:
        await client.ended()
        assert client.answer.body == b"news"
    assert site.forwards == 2


class Endless:
    """Streams small pieces for ever; `listens` says whether it stops when it hears that its client has left."""

    def __init__(self, *, listens: bool) -> None:
        self._listens = listens
        self.pieces = self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await receive()
        left = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        try:
            while not (self._listens and left.done()):
                self.pieces += 1
                await send({"type": "http.response.body", "body": b"", "more_body": True})
                await asyncio.sleep(0)
        except OSError:
            pass
        finally:
            left.cancel()


@pytest.mark.parametrize("listens", [True, False])
@MODES
async def test_a_stream_without_an_end_ends_after_its_client(mode: str, listens: bool) -> None:
    """It is kept on for as long as anybody would wait for it; then the app hears what it hears without the cache."""
    if mode == "layered" and not listens:
        # Starlette's middleware of this kind hides from the app that nobody takes what it sends.
        mode = "policy"
    endless = Endless(listens=listens)
    site = Site(mode, endless)
    client = site.client()
    await until(lambda: endless.pieces > 10)
    client.leave(strict=not listens)
    await settle()
    site.clock.tick(TIMEOUT - 0.1)
    await settle()
    assert not client.task.done()
    site.clock.tick(0.2)
    await client.ended()
    assert site.cache.statistics().responses == 0


@MODES
async def test_what_ends_in_time_is_kept_though_its_client_has_left(mode: str) -> None:
    """A client that leaves early does not cost the others the response that has begun."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        left = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await asyncio.wait({left, asyncio.ensure_future(gate.wait())}, return_when=asyncio.FIRST_COMPLETED)
        await send({"type": "http.response.body", "body": b"cut" if left.done() else b"two"})
        left.cancel()

    site = Site(mode, app)
    client = site.client()
    await until(lambda: len(client.messages) > 1)
    client.leave()
    site.clock.tick(TIMEOUT - 1)
    await settle()
    gate.set()
    await client.ended()
    later = await ask(site.app, "/")
    assert (later.body, later.cache and later.cache.hit) == (b"one two", True)


@MODES
async def test_what_is_cut_short_after_it_was_given_up_is_not_kept(mode: str) -> None:
    """The app hears the disconnect between its start and its content, and ends with what it has."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await receive()
        await send({"type": "http.response.body", "body": b"half"})

    site = Site(mode, app)
    client = site.client()
    await until(lambda: site.forwards)
    await settle()
    client.leave()
    await settle()
    site.clock.tick(TIMEOUT + 0.1)
    await client.ended()
    assert site.cache.statistics().responses == 0


@MODES
async def test_no_task_is_left_behind(mode: str) -> None:
    """What listened for the client ends with the app, whichever of the two was first."""
    poll = LongPoll(listening)
    site = Site(mode, poll)
    before = asyncio.all_tasks()
    stays, leaves = site.client(), site.client(headers={"host": "other"})
    await until(lambda: site.forwards == 2)
    await settle()
    leaves.leave()
    await leaves.ended()
    poll.news.set()
    await stays.ended()
    await settle()
    assert asyncio.all_tasks() == before


@MODES
async def test_who_left_while_it_waited_is_not_forwarded(mode: str) -> None:
    """After the time that anybody waits, the app is asked only for those who are still there."""
    endless = Endless(listens=True)
    site = Site(mode, endless)
    first = site.client()
    await until(lambda: endless.pieces > 10)
    waiting = [site.client() for _ in range(5)]
    await settle()
    for client in (first, *waiting[:-1]):
        client.leave()
    await settle()
    site.clock.tick(TIMEOUT + 0.1)
    for client in (first, *waiting[:-1]):
        await client.ended()
    await until(lambda: endless.calls > 1)
    await settle()
    assert endless.calls == 2
    waiting[-1].leave()
    await settle()
    site.clock.tick(TIMEOUT + 0.1)
    await waiting[-1].ended()


@MODES
async def test_who_left_while_it_waited_does_not_take_the_lead_of_a_failed_forward(mode: str) -> None:
    """The forward fails: the first of those who are still there leads, and all of them have its answer."""
    gate = asyncio.Event()
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await gate.wait()
            raise OSError("down")
        await say(send, b"page")

    site = Site(mode, app)
    first = site.client()
    await until(lambda: calls)
    gone, *stay = [site.client() for _ in range(4)]
    await settle()
    gone.leave()
    await settle()
    gate.set()
    with pytest.raises(OSError, match="down"):
        await first.ended()
    await gone.ended()
    for client in stay:
        await client.ended()
        assert client.answer.body == b"page"
    assert calls == 2
