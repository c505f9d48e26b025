"""The way to one CDN: what it has still to be told goes out in order, at its pace, until it has confirmed it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.cdn._client import Unreachable
from fastapi_cacheinval.contrib.cdn._entries import EVERYTHING, Entry, Order
from fastapi_cacheinval.contrib.cdn._ledger import Ledger, Parcel, Poison
from fastapi_cacheinval.contrib.cdn._pacing import Backoff, Bucket
from fastapi_cacheinval.contrib.cdn.requests import (
    CDN,
    Answer,
    Done,
    Purge,
    PurgeRequest,
    Rate,
    Refused,
    Retry,
    Verdict,
)
from fastapi_cacheinval.sources.handlers import Decision

__all__ = ["Lane", "Told"]

logger = logging.getLogger("fastapi_cacheinval.contrib.cdn")

# Requests in a row that a CDN may refuse, while it takes none, before the whole waits.
_MOST_REFUSALS = 24
_HURRIED_PAUSE = 0.1
_AS_GOOD_AS_NOW = 1e-6


class Told(Protocol):
    """Who hears how a lane gets on."""

    def confirmed(self, lane: Lane, count: int, orders: Sequence[Order]) -> None:
        """The CDN has done so many purges of tags."""
        ...

    def failed(self, lane: Lane, reason: str) -> None:
        """An attempt has failed, and is made again."""
        ...

    async def poisoned(self, lane: Lane, poison: Poison) -> Decision | None:
        """The CDN refuses a tag while it takes others; what is to become of it, None where that is not known yet."""
        ...


@dataclass(slots=True)
class _Round:
    """What is under way: each tag with its entry, and how many requests it still takes."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    alone: set[str] = field(default_factory=set[str])
    open: Counter[str] = field(default_factory=Counter[str])
    stack: list[tuple[PurgeRequest, bool]] = field(default_factory=list[tuple[PurgeRequest, bool]])
    refusals: int = 0
    taken: bool = False


class Lane:
    """What one CDN has still to be told, and the loop that tells it.

    `run` tells it until it is cancelled; `work` is one attempt at what is due.
    """

    def __init__(self, cdn: CDN, ledger: Ledger, rate: Rate, told: Told, cache: HTTPCache) -> None:
        self.cdn = cdn
        self.trouble = ""
        self._ledger = ledger
        self._bucket = Bucket(rate)
        self._backoff = Backoff()
        self._told = told
        self._clock = cache.clock
        self._now = cache.clock.now
        self._not_before = 0.0
        self._under_way = 0
        self._hurried = False
        self._stirred = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Lane to {self.cdn!r}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many tags the CDN has not confirmed."""
        return self._ledger.waiting + self._under_way

    @property
    def idle(self) -> bool:
        """Whether there is nothing to tell, now or, for the second time, later."""
        return not self._under_way and not self._ledger.pressing(self._now())

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Have the CDN told of these."""
        collapsed = self._ledger.collapsed
        self._ledger.add(entries, self._now())
        if self._ledger.collapsed > collapsed:
            logger.warning("%r: too many tags wait, so that everything is purged instead", self.cdn)
        self._stirred.set()

    def begin(self) -> None:
        """There is time again."""
        self.trouble = ""
        self._hurried = self._ledger.final = False

    def hurry(self) -> None:
        """There is not much time: pauses are short, and it is the CDN that says how fast it may be told."""
        self._hurried = True
        self._not_before = 0.0
        self._stirred.set()

    def last_call(self) -> None:
        """There is no later: what is due some time is due now."""
        self._ledger.hasten(self._now())
        self._not_before = 0.0
        self._stirred.set()

    async def run(self, ask: Callable[[PurgeRequest], Awaitable[Answer]]) -> None:
        """Tell it all that is added, until cancelled."""
        self._stirred = asyncio.Event()
        while True:
            self._stirred.clear()
            seconds = self._until_due()
            if seconds is not None and seconds <= _AS_GOOD_AS_NOW:
                await self.work(ask)
            else:
                await self._nap(seconds)

    def _until_due(self) -> float | None:
        due = self._ledger.due()
        return None if due is None else max(due, self._not_before) - self._now()

    async def _nap(self, seconds: float | None) -> None:
        alarm = None if seconds is None else self._clock.call_later(seconds, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            if alarm is not None:
                alarm.cancel()

    async def work(self, ask: Callable[[PurgeRequest], Awaitable[Answer]]) -> None:
        """Tell what is due now; returns when it is told, or at the first failure, after which a pause is due.

        Whatever ends it, nothing is lost: what is not confirmed is to be told again.
        """
        under_way = _Round()
        try:
            for parcel in reversed(self._ledger.take(self._now())):
                self._begin(under_way, parcel)
            while under_way.stack:
                await self._turn()
                request, soft = under_way.stack.pop()
                verdict = await self._verdict(request, ask)
                if not await self._settle(under_way, request, verdict, soft=soft):
                    return
            if under_way.entries:
                self._pause(f"the adapter made no request for {len(under_way.entries)} tag(s)", slow=True)
        except Exception as error:  # an adapter's own mistake: it is seen, and nothing is lost
            logger.debug("%r failed", self.cdn, exc_info=True)
            # Its type only: what it says may name tags.
            self._pause(f"the adapter failed with {type(error).__name__}", slow=True)
        finally:
            self._under_way = 0
            left = {tag: entry for tag, entry in under_way.entries.items() if tag not in under_way.alone}
            if left:
                self._ledger.add(left, self._now())

    def _begin(self, under_way: _Round, parcel: Parcel) -> None:
        under_way.entries.update(parcel.entries)
        if parcel.alone:
            under_way.alone.update(parcel.entries)
        else:
            self._under_way += len(parcel.entries)
        self._stack(under_way, parcel.purge)

    def _stack(self, under_way: _Round, purge: Purge) -> None:
        for request in reversed(self.cdn.requests(purge)):
            under_way.open.update(_tags(request))
            under_way.stack.append((request, purge.soft))

    async def _turn(self) -> None:
        while (seconds := self._bucket.take(self._now())) > 0 and not self._hurried:
            self._stirred.clear()
            await self._nap(seconds)

    async def _verdict(self, request: PurgeRequest, ask: Callable[[PurgeRequest], Awaitable[Answer]]) -> Verdict:
        try:
            answer = await ask(request)
        except Unreachable as away:
            return Retry(str(away))
        return self.cdn.judge(request, answer)

    async def _settle(self, under_way: _Round, request: PurgeRequest, verdict: Verdict, *, soft: bool) -> bool:
        """Take note of a verdict; whether to go on."""
        match verdict:
            case Done():
                under_way.refusals, under_way.taken = 0, True
                self._done(under_way, _tags(request))
                return True
            case Retry():
                self._pause(verdict.reason, after=verdict.after)
                return False
            case Refused() if verdict.by_tag and request.tags and under_way.refusals < _MOST_REFUSALS:
                under_way.refusals += 1
                await self._split(under_way, request.tags, verdict.reason, soft=soft)
                return True
            case Refused():
                self._pause(verdict.reason, slow=True)
                return False
            case _:
                assert_never(verdict)

    def _done(self, under_way: _Round, tags: Sequence[str]) -> None:
        under_way.open.subtract(tags)
        done = {
            tag: under_way.entries.pop(tag) for tag in tags if under_way.open[tag] <= 0 and tag in under_way.entries
        }
        count, orders = 0, list[Order]()
        for alone in (False, True):
            part: Mapping[str, Entry] = {t: entry for t, entry in done.items() if (t in under_way.alone) is alone}
            confirmed = self._ledger.confirmed(part, self._now(), alone=alone)
            count += confirmed.count
            orders += confirmed.orders
        self._under_way = len(under_way.entries.keys() - under_way.alone)
        self._backoff.well()
        self._told.confirmed(self, count, orders)

    async def _split(self, under_way: _Round, tags: Sequence[str], reason: str, *, soft: bool) -> None:
        """Find the tag that is at fault among those of a refused request."""
        self._told.failed(self, reason)
        under_way.open.subtract(tags)
        named = [tag for tag in dict.fromkeys(tags) if tag in under_way.entries]
        if len(named) > 1:
            for half in (named[len(named) // 2 :], named[: len(named) // 2]):
                self._stack(under_way, Purge(tuple(half), soft))
            return
        for tag in named:
            entry = under_way.entries.pop(tag)
            poison = self._ledger.park(
                tag, entry, reason, self._now(), proof=under_way.taken, alone=tag in under_way.alone
            )
            self._under_way = len(under_way.entries.keys() - under_way.alone)
            if poison is not None:
                self._ledger.answered(tag, await self._told.poisoned(self, poison), self._now())

    def _pause(self, reason: str, *, after: float | None = None, slow: bool = False) -> None:
        chance = random.random()  # noqa: S311  # spreads, hides nothing
        pause = self._backoff.pause(after=after, slow=slow, chance=chance)
        self._not_before = self._now() + (min(pause, _HURRIED_PAUSE) if self._hurried else pause)
        self._told.failed(self, reason)


def _tags(request: PurgeRequest) -> tuple[str, ...]:
    return request.tags or (EVERYTHING,)
