"""Messages that are no part of a response: the server says of them what it says without a cache; nothing keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.routes.layer_kinds import passes_through
from fastapi_cacheinval.testing import FakeClock, assert_hit
from tests.helpers.http import Answer, Call, scope_of
from tests.helpers.messages import EMPTY, END, ONE, SHAPES, SIZED, START, STRAYS, WHOLE, Passes, Site, heard

pytestmark = pytest.mark.anyio

MODES: dict[str, Callable[[Site], Any]] = {
    "by headers": lambda site: site,
    "by policy": lambda site: site.routed(),
    "behind a layer": lambda site: site.routed(Passes),
    "with a timeout": lambda site: site.routed(hard_timeout=20),
    "switched off": lambda site: site.routed(),
}


def behind(mode: str, site: Site, **options: Any) -> Any:
    """The site behind a cache."""
    return CacheMiddleware(MODES[mode](site), cache=HTTPCache(**options), honour_headers=mode == "by headers")


def placed(messages: list[Any]) -> Iterator[list[Any]]:
    """Each message that does not belong there in each place, but those where it is part of another response."""
    for stray in STRAYS.values():
        for at in range(len(messages) + 1):
            body, start = stray["type"].endswith("body"), stray["type"].endswith("start")
            if not (body and 0 < at < len(messages)) and not (start and at == 0):
                yield [*messages[:at], stray, *messages[at:]]


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "raises"])
@pytest.mark.parametrize("mode", ["by headers", "by policy", "behind a layer", "switched off"])
@pytest.mark.parametrize("shape", list(SHAPES))
async def test_the_app_and_every_client_hear_what_they_hear_without_a_cache(
    shape: str, mode: str, *, goes_on: bool
) -> None:
    """The same messages are refused, the same error leaves, and two clients in turn get the same body."""
    for messages in placed(SHAPES[shape]):
        bare, site = Site(messages, goes_on=goes_on), Site(messages, goes_on=goes_on)
        expected, error = await heard(MODES[mode](bare))
        app = behind(mode, site, enabled=mode != "switched off")
        for _ in range(2):
            calls = site.calls
            call, raised = await heard(app)
            assert (call.started, call.body) == (expected.started, expected.body)
            if site.calls > calls:
                assert (site.refused, repr(raised)) == (bare.refused, repr(error)), messages


@pytest.mark.parametrize("mode", ["by headers", "by policy", "behind a layer", "with a timeout"])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("stray", list(STRAYS))
async def test_what_comes_after_the_end_does_not_keep_a_response_from_being_stored(
    shape: str, stray: str, mode: str
) -> None:
    """The app goes on after the refusal: the second request is a hit, of the response alone."""
    site = Site([*SHAPES[shape], STRAYS[stray]], goes_on=True)
    app = behind(mode, site)
    first, _ = await heard(app)
    hit, _ = await heard(app)
    answer = Answer(hit.messages)
    assert_hit(answer)
    assert answer.body == first.body
    assert answer.headers["cache-control"] == "max-age=60"
    assert site.calls == 1


@pytest.mark.parametrize("mode", ["by headers", "by policy", "behind a layer"])
@pytest.mark.parametrize("messages", [[SIZED, WHOLE | {"more_body": True}], [SIZED, ONE, END | {"more_body": True}]])
async def test_more_than_was_declared_is_refused(messages: list[Any], mode: str) -> None:
    """The server's error reaches the app or the log, and what is kept is as long as it was declared."""
    site = Site([*messages, STRAYS["more"]], goes_on=False)
    app = behind(mode, site)
    first, error = await heard(app)
    assert first.body == b"page"
    assert isinstance(error, RuntimeError)
    second, _ = await heard(app)
    assert second.body == b"page"


@pytest.mark.parametrize("mode", ["by headers", "by policy"])
@pytest.mark.parametrize("stray", list(STRAYS))
async def test_a_client_that_has_the_page_is_told_so_once(stray: str, mode: str) -> None:
    """The 304 is the whole answer, also where the app's body is still to come, and the refusal is the server's."""
    messages = [{**START, "headers": [*START["headers"], (b"etag", b'"1"')]}, ONE, END, STRAYS[stray]]
    site = Site(messages, goes_on=True)
    app = behind(mode, site)
    asked = {"if-none-match": '"1"'}
    for _ in range(2):
        call, error = await heard(app, headers=asked)
        assert error is None
        answer = Answer(call.messages)
        assert (answer.status_code, answer.body) in ((304, b""), (200, b"page"))
    assert answer.status_code == 304


@pytest.mark.parametrize("stray", list(STRAYS))
async def test_an_answer_of_another_owner_is_not_touched(stray: str) -> None:
    """A stale response stands in for a failure; what the app sends after its own end is refused."""
    clock = FakeClock()
    site = Site([START, WHOLE], goes_on=True)
    app = CacheMiddleware(site.routed(stale_if_error=600), cache=HTTPCache(clock=clock))
    await heard(app)
    clock.tick(100)
    site.messages = [{**START, "status": 503}, ONE, END, STRAYS[stray]]
    call, error = await heard(app)
    assert (Answer(call.messages).status_code, call.body, error) == (200, b"page", None)
    assert site.refused == [3]


@pytest.mark.parametrize("stray", list(STRAYS))
async def test_a_304_that_speaks_of_another_response_answers_nobody(stray: str) -> None:
    """The whole is asked for once more; what came after the 304 is nothing that this client is sent."""
    clock = FakeClock()
    site = Site([{**START, "headers": [*START["headers"], (b"etag", b'"1"')]}, WHOLE], goes_on=True)
    app = CacheMiddleware(site, cache=HTTPCache(clock=clock), honour_headers=True)
    await heard(app)
    clock.tick(100)
    other = {"type": "http.response.start", "status": 304, "headers": [(b"etag", b'"2"')]}

    async def says(scope: Any, receive: Any, send: Any) -> None:
        asks = any(name == b"if-none-match" for name, _ in scope["headers"])
        for message in [other, EMPTY, STRAYS[stray]] if asks else [START, ONE, END]:
            await send(message)

    app.app = says
    call, error = await heard(app)
    assert error is None
    assert (Answer(call.messages).status_code, call.body) == (200, b"page")


async def test_announced_trailers_are_part_of_a_response_that_is_not_kept() -> None:
    """They come through, and a response in whose place another one stands takes its trailers with it."""
    clock = FakeClock()
    site = Site([START, WHOLE], goes_on=False)
    app = CacheMiddleware(site.routed(stale_if_error=600), cache=HTTPCache(clock=clock))
    await heard(app)
    clock.tick(100)
    with_trailers = {**START, "status": 503, "trailers": True}
    site.messages = [with_trailers, WHOLE, STRAYS["trailers"] | {"more_trailers": True}, STRAYS["trailers"]]
    call, error = await heard(app)
    assert (call.body, error, site.refused) == (b"page", None, [])
    site.messages[0] = {**with_trailers, "status": 200}
    call = Call(CacheMiddleware(site.routed(), cache=HTTPCache()), scope_of("/"))
    await call.answer()
    assert [message["type"].rpartition(".")[2] for message in call.messages] == [
        "start",
        "body",
        "trailers",
        "trailers",
    ]


class Adds(Passes):
    """A layer that sends one message more than the app inside it."""

    stray: Any = None
    refused = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)
        try:
            await send(self.stray)
        except RuntimeError:
            type(self).refused += 1


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("stray", list(STRAYS))
@pytest.mark.parametrize("known", [True, False])
async def test_what_a_layer_adds_after_the_end_is_refused_on_hits_too(shape: str, stray: str, *, known: bool) -> None:
    """The layer is refused on the fill and on the hit, as it is without a cache; both clients get the page."""

    class Layer(Adds):
        pass

    Layer.stray = STRAYS[stray]
    if known:
        # The request is unwound through it.
        passes_through(Layer)
    site = Site(SHAPES[shape], goes_on=False)
    app = CacheMiddleware(site.routed(Layer), cache=HTTPCache())
    asked = {"authorization": "an answer before routing is none for this"}
    bodies = [(await heard(app, headers=asked))[0].body for _ in range(2)]
    assert bodies[0] == bodies[1]
    assert (site.calls, Layer.refused) == (1, 2)
