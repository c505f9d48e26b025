"""A purge of the page: what it takes, and what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_cacheinval import PurgeNotDelivered, ReplicasUnknown
from fastapi_cacheinval.inspector.changes import Changes
from tests.inspector.inspected import Inspected

pytestmark = pytest.mark.anyio


async def loaded() -> Inspected:
    """A page that is loaded."""
    inspected = Inspected()
    await inspected.load()
    return inspected


@pytest.mark.parametrize(
    ("body", "gone"),
    [
        ({"tags": ["item:1"]}, {"1"}),
        ({"tags": ["items", "nothing"]}, {"1", "2"}),
        ({"url": "/items/2"}, {"2"}),
        ({"url": "http://shop.example/items/2?q=1"}, {"2"}),
        ({"everything": True}, {"1", "2"}),
        ({"everything": True, "url": None, "tags": None}, {"1", "2"}),
    ],
    ids=lambda given: str(sorted(given)),
)
async def test_what_is_named_is_purged_and_nothing_else(body: Any, gone: set[str]) -> None:
    """Tags, a URL of any form, or everything."""
    inspected = await loaded()
    for item in "12":
        await inspected.shop.ask(f"/items/{item}")
    told = json.loads((await inspected.purge(body)).body)
    assert (told["became"], told["replicas"]) == ("done", 1)
    for item in "12":
        before = inspected.shop.calls
        await inspected.shop.ask(f"/items/{item}")
        assert (inspected.shop.calls > before) == (item in gone), item


async def test_a_soft_purge_is_soft() -> None:
    """`soft` reaches the log."""
    inspected = await loaded()
    told = json.loads((await inspected.purge({"tags": ["items"], "soft": True})).body)
    assert told["soft"] is True


WRONG: list[Any] = [
    {},
    [],
    "everything",
    None,
    {"everything": False},
    {"everything": 1},
    {"everything": "yes"},
    {"tags": []},
    {"tags": "items"},
    {"tags": [1]},
    {"tags": [""]},
    {"tags": ["a"] * 1001},
    {"tags": ["a"], "everything": True},
    {"tags": ["a"], "url": "/"},
    {"url": ""},
    {"url": " "},
    {"url": 5},
    {"tags": ["a"], "soft": "no"},
    {"tags": ["a"], "wait": "all"},
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 20_000,
]


@pytest.mark.parametrize("body", WRONG, ids=lambda body: str(body)[:40])
async def test_what_is_no_purge_is_refused_with_a_reason(body: Any) -> None:
    """What cannot be meant is answered with 422 and a sentence, and purges nothing."""
    inspected = await loaded()
    answer = await inspected.purge(body)
    assert answer.status_code == 422
    assert json.loads(answer.body)["error"].endswith(".")
    assert inspected.shop.cache.statistics().purges == {}


async def test_a_body_is_bounded() -> None:
    """More than 64 KiB are not read."""
    inspected = await loaded()
    assert (await inspected.purge({"tags": ["a" * 70_000]})).status_code == 413


async def test_hostile_tags_are_purged_in_their_normal_form() -> None:
    """White space, markup and letters that are not ASCII are no error: they are what a response may have carried."""
    inspected = await loaded()
    told = json.loads((await inspected.purge({"tags": ["<script> ä", "\ud800", "x" * 3000]})).body)
    assert told["became"] == "done"
    assert told["tags"][0] == "<script>%20%C3%A4"
    assert told["tags"][2].startswith("sha256:")


class Unreachable:
    """A cache whose log is in trouble."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def clear(self, **options: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PurgeNotDelivered(("a",), "refused"), 202, {"became": "queued", "why": "refused"}),
        (ReplicasUnknown(1, 7, "timeout"), 200, {"became": "unconfirmed", "why": "timeout", "term": 1, "seq": 7}),
    ],
    ids=["queued", "unconfirmed"],
)
async def test_a_log_in_trouble_is_told_as_it_is(error: Exception, status: int, said: Any) -> None:
    """A purge that waits for Redis, and one of which not every replica has told, are neither done nor failed."""
    inspected = await loaded()
    cache: Any = Unreachable(error)
    inspected.inspector._handlers["/api/purge"] = ("POST", Changes(cache).purge)
    answer = await inspected.purge({"everything": True})
    assert answer.status_code == status
    assert json.loads(answer.body) == said


async def test_a_cache_that_queues_nothing_says_so() -> None:
    """What is not queued is not done, and the answer is an error of the server's."""
    inspected = await loaded()
    cache: Any = Unreachable(PurgeNotDelivered(("a",), "refused", queued=False))
    inspected.inspector._handlers["/api/purge"] = ("POST", Changes(cache).purge)
    answer = await inspected.purge({"everything": True})
    assert answer.status_code == 503
    assert "It is not queued" in json.loads(answer.body)["error"]
