"""A flood of events that cannot be read is one line a minute in the log, with their count."""

from __future__ import annotations

import logging
from functools import partial

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.sources import Attached
from fastapi_cacheinval.sources.seldom import OnceAMinute
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio

LOGGER = logging.getLogger("fastapi_cacheinval.contrib.test")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def _lines(caplog: pytest.LogCaptureFixture, count: int) -> bool:
    return len(said(caplog)) == count


async def test_a_flood_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The first is told at once; of the others the count, each minute that there were any, with the last of them."""
    clock = FakeClock()
    seldom = OnceAMinute(LOGGER, clock)
    for minute in range(3):
        for second in range(60):
            seldom.tell(f"event {minute}:{second}")
            clock.tick(1)
        await eventually(partial(_lines, caplog, minute + 2), "the line of a minute")
    assert said(caplog)[0] == "event 0:0"
    assert [text.split()[0] for text in said(caplog)[1:]] == ["59", "60", "60"]
    assert said(caplog)[-1].endswith("event 2:59")


async def test_a_quiet_minute_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """After it the next event is told at once again."""
    clock = FakeClock()
    seldom = OnceAMinute(LOGGER, clock)
    seldom.tell("one")
    clock.tick(60)
    await eventually(lambda: seldom._alarm is None, "the end of the minute")
    seldom.tell("two")
    assert said(caplog) == ["one", "two"]
    seldom.close()
    assert said(caplog) == ["one", "two"]


async def test_the_end_tells_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """What was counted and not told is told when the source stops; nothing is left to ring."""
    clock = FakeClock()

    class Refusing(Attached):
        async def serve(self) -> None:
            for number in range(1_000):
                self.refuse(f"{self.name}: event {number}")
            self.well()
            await self.rest(1_000)

    cache = HTTPCache(clock=clock)
    source = Refusing(cache, "flooded")
    async with cache, source:
        await eventually(lambda: source.state().connected, "the flood")
        assert said(caplog) == ["flooded: event 0"]
        assert source.state().refused == 1_000
    assert said(caplog)[1].startswith("999 more ")
    assert said(caplog)[1].endswith("flooded: event 999")
    assert len(said(caplog)) == 2
