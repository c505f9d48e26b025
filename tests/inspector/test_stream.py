"""The stream of events: what it tells, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.inspector.feed import MOST_EVENTS, MOST_WATCHERS, Watcher
from fastapi_cacheinval.inspector.reads import Reads
from fastapi_cacheinval.inspector.stream import EventStream
from tests.helpers.http import Call, scope_of, until
from tests.inspector.inspected import Inspected, events_of, listed

pytestmark = pytest.mark.anyio


async def test_it_tells_the_state_first() -> None:
    """Who connects sees at once how the cache stands, without a second request."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    async with inspected.watching() as stream:
        name, state = events_of(stream)[0]
        assert name == "state"
        assert (state["misses"], state["responses"], state["connected"], state["alone"]) == (1, 1, True, True)
        assert state["lease_remaining"] is None


async def test_a_purge_is_told_with_its_tags() -> None:
    """A mutation of the app is on the page as it happens: tags, paths, its number in the log."""
    inspected = Inspected()
    async with inspected.watching() as stream:
        await inspected.shop.ask("/items/7", method="PUT")
        await until(lambda: listed(stream, "purge"), "the purge")
        (purge,) = listed(stream, "purge")
        assert purge["tags"] == ["item:7"]
        assert "/items/7" in purge["paths"]
        assert (purge["own"], purge["by"]) == (True, "PUT /items/{item}")
        assert (purge["seq"], purge["soft"], purge["everything"], purge["more"]) == (1, False, False, 0)


async def test_how_sure_the_comparisons_make_one_is_told() -> None:
    """With `shadow` the page says what came of making hits again; without it there is nothing to say."""
    inspected = Inspected(shop={"shadow": 1.0})
    for _ in range(2):
        await inspected.shop.ask("/items/1")
    await until(lambda: inspected.shop.cache.statistics().shadow.compared, "the comparison")
    state = await inspected.json("/api/state")
    assert state["shadow_said"] == "5.00 % equal, 95 % sure, 1 compared"
    assert state["shadow"]["different"] == 0
    assert (await Inspected().json("/api/state"))["shadow_said"] is None


async def test_requests_are_told_with_what_became_of_them() -> None:
    """A miss, a hit, and what a client sent under the name of a credential is not told."""
    inspected = Inspected()
    async with inspected.watching() as stream:
        for _ in range(2):
            await inspected.shop.ask("/items/7?token=secret")
        await until(lambda: listed(stream, "hit"), "the hit")
        (miss,), (hit,) = listed(stream, "miss"), listed(stream, "hit")
        assert (miss["method"], miss["route"], hit["tier"]) == ("GET", "GET /items/{item}", "l1")
        assert "fwd=uri-miss" in miss["status"]
        assert "; hit; " in hit["status"]
        assert miss["path"].startswith("/items/7")
        assert b"secret" not in stream.body
        assert {"item:7", "items"} <= set(miss["tags"])


async def test_a_very_large_purge_is_a_short_event() -> None:
    """The first tags are told, and how many more there are."""
    inspected = Inspected()
    async with inspected.watching() as stream:
        await inspected.shop.cache.invalidate(*(f"tag:{number}" for number in range(5_000)))
        await until(lambda: listed(stream, "purge"), "the purge")
        (purge,) = listed(stream, "purge")
        assert (len(purge["tags"]), purge["more"]) == (20, 4_980)


async def test_what_does_not_fit_is_counted() -> None:
    """A flood between two looks is bounded: the newest are listed, and the page is told how many were not."""
    inspected = Inspected()
    async with inspected.watching() as stream:
        for number in range(MOST_EVENTS + 30):
            inspected.inspector._stream._feed.tell({"kind": "purge", "number": number})
        await until(lambda: listed(stream, "purge"), "the flood")
        (feed,) = [data for name, data in events_of(stream) if name == "feed"]
        assert [each["number"] for each in feed["events"]] == list(range(30, MOST_EVENTS + 30))
        assert feed["dropped"] == 30


async def test_hostile_names_stay_one_line_of_json() -> None:
    """Line breaks, quotes and what no UTF-8 has do not end an event or begin another."""
    inspected = Inspected()
    async with inspected.watching() as stream:
        hostile = "</script>\n\ndata: x\r\nevent: y\u2028\ud800\"'"
        inspected.inspector._stream._feed.tell({"kind": "purge", "tags": [hostile]})
        await until(lambda: listed(stream, "purge"), "the event")
        assert listed(stream, "purge")[0]["tags"] == [hostile]


async def test_a_client_that_goes_leaves_nothing() -> None:
    """No task and no watcher stay behind, and front hits are as fast as before: nobody listens to them."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    before = asyncio.all_tasks()
    feed = inspected.shop.cache._core.feed
    streams = [inspected.watch() for _ in range(5)]
    await until(lambda: all(events_of(stream) for stream in streams), "the streams")
    assert feed.on
    for stream in streams:
        stream.go_away()
        await stream.answer()
    assert asyncio.all_tasks() == before
    assert not feed.on
    assert inspected.inspector._stream._feed.watchers == 0


async def test_a_stream_that_is_cancelled_leaves_nothing() -> None:
    """A server that cancels its requests finds no task behind either."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    before = asyncio.all_tasks()
    stream = inspected.watch()
    await until(lambda: events_of(stream), "the stream")
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    assert asyncio.all_tasks() == before
    assert inspected.inspector._stream._feed.watchers == 0


async def test_a_client_that_does_not_read_is_let_go() -> None:
    """Its events are bounded, and a message that it does not take in time ends the stream."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    inspected.inspector._stream._patience = 0.05
    reads = [3]

    async def stuck(message: Any) -> None:
        reads[0] -= 1
        if reads[0] < 0:
            await asyncio.Event().wait()

    stream = Call(inspected.inspector, scope_of("/api/events", host="localhost"), before_send=stuck)
    await until(lambda: events_of(stream), "the stream")
    inspected.inspector._stream._feed.tell({"kind": "purge"})
    await stream.answer()
    assert inspected.inspector._stream._feed.watchers == 0


async def test_a_connection_that_breaks_while_something_is_sent_is_no_error() -> None:
    """Servers raise `OSError` then; the stream ends in silence."""
    inspected = Inspected()
    reads = [3]

    async def broken(message: Any) -> None:
        reads[0] -= 1
        if reads[0] < 0:
            raise OSError

    stream = Call(inspected.inspector, scope_of("/api/events", host="localhost"), before_send=broken)
    await until(lambda: events_of(stream), "the stream")
    inspected.inspector._stream._feed.tell({"kind": "purge"})
    await stream.answer()
    assert inspected.inspector._stream._feed.watchers == 0


async def test_so_many_may_watch_and_no_more() -> None:
    """One too many is told to come later; when one goes there is room."""
    inspected = Inspected()
    streams = [inspected.watch() for _ in range(MOST_WATCHERS)]
    await until(lambda: inspected.inspector._stream.full, "all of them")
    refused = await inspected.watch().answer()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    streams[0].go_away()
    await streams[0].answer()
    late = inspected.watch()
    await until(lambda: events_of(late), "the late one")
    for stream in (*streams[1:], late):
        stream.go_away()
        await stream.answer()


async def test_a_change_of_the_connection_is_told_at_once() -> None:
    """The page does not wait for its second to hear that Redis is away."""
    beats = iter(["in touch", "in touch", "away", "away", "away"])
    states: list[str] = []

    def state() -> dict[str, Any]:
        states.append("told")
        return {}

    stream = EventStream(lambda tell: lambda: None, state, lambda: next(beats, "away"))
    gone = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(stream.serve(receive, send))
    await until(lambda: len(states) >= 2, "the second state")
    # The third look of four in a second.
    assert next(beats, "over") == "away"
    gone.set()
    await task


async def test_a_server_that_stops_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn waits for open answers when it is told to stop: the stream sees that, and ends."""

    class Server:
        should_exit = False

        def handle_exit(self, *_: Any) -> None: ...

    server = Server()
    monkeypatch.setattr(signal, "getsignal", lambda number: server.handle_exit)
    stream = Inspected().watch()
    await until(lambda: events_of(stream), "the stream")
    server.should_exit = True
    answer = await stream.answer()
    assert events_of(stream)[-1][0] == "renew"
    assert answer.messages[-1]["more_body"] is False


def test_a_watcher_is_filled_from_any_thread() -> None:
    """However many threads purge, it holds the newest, and goes on from there."""
    watcher = Watcher()

    def put() -> None:
        for _ in range(1_000):
            watcher.put({})

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events, _ = watcher.take()
    assert len(events) == MOST_EVENTS
    assert watcher.take() == ([], 0)
    watcher.put({"kind": "purge"})
    assert watcher.take() == ([{"kind": "purge"}], 0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "Purges are queued and delivered when it is back. Nothing older than the staleness bound is served."),
        ({"mutations_when_disconnected": "refuse"}, "Mutations that purge something are answered 503"),
        ({"stale_when_disconnected": 60, "staleness_bound": 5}, "may be served for up to 65 s more"),
    ],
)
async def test_what_is_said_while_redis_is_away_is_as_the_cache_is_set(options: dict[str, Any], says: str) -> None:
    """The page does not promise what the cache was told not to keep."""
    cache = HTTPCache(**options)
    assert says in Reads(cache).state()["while_away"]
