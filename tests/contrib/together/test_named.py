"""What a function of tags returns means the same in every source."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.kafka import Record
from fastapi_cacheinval.contrib.kafka.record import read as read_record
from fastapi_cacheinval.contrib.sqlalchemy.rules import Rules
from fastapi_cacheinval.contrib.sqs import Message
from fastapi_cacheinval.contrib.sqs.reading import read as read_message
from fastapi_cacheinval.sources import EVERYTHING, Change, Outcome, Source, UnreadableEvent
from fastapi_cacheinval.testing import capture_invalidations

pytestmark = pytest.mark.anyio

NAMED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "None": (None, ()),
    "no tags": ([], ()),
    "a str": ("product:42", ("product:42",)),
    "a list": (["a", "b"], ("a", "b")),
    "a tuple": (("a",), ("a",)),
    "a mapping": ({"a": 1}, ("a",)),
}
REFUSED: dict[str, Any] = {"bytes": b"a", "a number": 5, "an empty str": "", "a list with None": [None], "True": True}


class Own(Source):
    async def serve(self) -> None:
        """Nothing comes by itself."""


def by_kafka(named: Any) -> Change:
    return read_record(Record("t", 0, 0, None, b"x"), lambda record: named, 100)


def by_sqs(named: Any) -> Change:
    return read_message(Message.of({"MessageId": "1", "Body": "x"}), lambda message: named, soft=False)


@pytest.mark.parametrize(("named", "tags"), NAMED.values(), ids=NAMED)
async def test_tags_are_named_alike(named: Any, tags: tuple[str, ...]) -> None:
    """None is nothing to purge, and one str is one tag: from Kafka, from SQS, from a source of one's own, from a session."""
    assert by_kafka(named) == by_sqs(named) == Change(tags)
    cache = HTTPCache()
    async with cache:
        with capture_invalidations(cache) as receipts:
            assert await Own(cache, "own").handle("x", lambda event: named) == (Outcome.DONE, None)
    assert tuple(tag for receipt in receipts for tag in receipt.tags) == tags
    assert tuple(Rules(functions=(lambda row: named,)).told(object())) == tags


@pytest.mark.parametrize("named", REFUSED.values(), ids=REFUSED)
async def test_what_names_no_tags_cannot_be_read_by_any(named: Any) -> None:
    """It is for `on_unreadable` everywhere."""
    for read in (by_kafka, by_sqs):
        with pytest.raises(UnreadableEvent):
            read(named)
    async with HTTPCache() as cache:
        outcome, why = await Own(cache, "own").handle("x", lambda event: named)
    assert (outcome, type(why)) == (Outcome.KEPT, UnreadableEvent)


def test_everything_and_a_change_are_named_alike() -> None:
    """`EVERYTHING` and a `Change` are taken by all that read events."""
    for read in (by_kafka, by_sqs):
        assert read(EVERYTHING) == Change(everything=True)
        assert read(Change(("a",), soft=True)) == Change(("a",), soft=True)
