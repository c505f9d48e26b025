"""The relay: reads the outbox, purges, and deletes what is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_cacheinval import CacheinvalError, ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.outbox.claiming import Claim, claims
from fastapi_cacheinval.contrib.outbox.reading import UnreadableRow, read
from fastapi_cacheinval.contrib.outbox.table import Outbox
from fastapi_cacheinval.contrib.outbox.waking import Ear, listening
from fastapi_cacheinval.sources import KEEP, Change, OnUnreadable, Source, Then, UnreadableEvent
from fastapi_cacheinval.sources.attached import FIRST_PAUSE, LONGEST_PAUSE, DoublingPause
from fastapi_cacheinval.sources.changes import in_few
from fastapi_cacheinval.sources.handlers import on_unreadable_of
from fastapi_cacheinval.sources.waiting import done_within, ended

__all__ = ["OutboxRelay", "OutboxUnavailable"]

_LOOK_AGAIN = 0.05
_FIRST_BUSY = 0.01
_LARGEST_BATCH = 10_000


class OutboxUnavailable(CacheinvalError):
    """The database could not be reached, or refused; the relay tries again."""


class _Found(Enum):
    NOTHING = auto()
    SOMETHING = auto()
    OTHERS_FIRST = auto()


class OutboxRelay(Source):
    """Purges what stands in an outbox, in its order, and deletes it: for `cache.attach`, or `await relay.run()`.

    Any number of them may run. It looks every `poll` seconds, and at once when PostgreSQL notifies it (with asyncpg or
    psycopg) or `wake` is called. At most `batch` rows are taken at a time; what is taken is kept from other relays for
    at most `hold` seconds, by a transaction on PostgreSQL, and seen through all the same after that. `then` is awaited
    with the receipt of each purge before its rows are deleted; where it raises they are purged again. `on_unreadable`
    answers for each row that cannot be read: with `DROP`, which deletes it, with a `Change` that is purged before it is
    deleted, or with `KEEP`, as without it: the row stays, marked as refused. Where it raises, the row is tried again.
    `on_poison` is its old name.

    Raises `ConfigurationError` for an engine, a duration or a number that cannot work.
    """

    def __init__(
        self,
        cache: HTTPCache,
        engine: AsyncEngine,
        outbox: Outbox,
        *,
        poll: float = 0.5,
        batch: int = 100,
        hold: float = 5.0,
        then: Then | None = None,
        on_unreadable: OnUnreadable | None = None,
        name: str = "outbox",
        on_poison: Any = None,
    ) -> None:
        asked = on_unreadable_of(on_unreadable, on_poison, _as_before)
        super().__init__(cache, name, then=then, on_unreadable=asked)
        if not isinstance(engine, AsyncEngine):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"OutboxRelay takes an AsyncEngine, not {engine!r}.")
        if not isinstance(outbox, Outbox):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"OutboxRelay takes the Outbox that it reads, not {outbox!r}.")
        if not (poll > 0 and hold > 0):
            raise ConfigurationError(f"poll and hold are seconds above 0, not {poll!r} and {hold!r}.")
        if not 1 <= batch <= _LARGEST_BATCH:
            raise ConfigurationError(f"batch is from 1 to {_LARGEST_BATCH} rows, not {batch!r}.")
        self._claims = claims(engine, outbox, batch)
        self._poll = poll
        self._hold = hold
        # Rows that cannot be read and that `on_unreadable` has failed for, when they are asked about again, and the
        # pause after that. They hold up nothing meanwhile.
        self._failing: set[int] = set()
        self._again_at = 0.0
        self._again_after = DoublingPause(FIRST_PAUSE, LONGEST_PAUSE)
        self._rung = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop, self._rung = asyncio.get_running_loop(), asyncio.Event()
        return await super().__aenter__()

    def wake(self) -> None:
        """Have it look at once, from whatever thread; nothing happens while it does not run."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._rung.set)

    # -- work -----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Look for rows, purge what they name, and delete them."""
        engine, channel = self._claims.engine, self._claims.outbox.channel
        try:
            async with self._claims.entered(), listening(engine, channel, self._rung.set) as ear:
                await self._work(ear)
        except (SQLAlchemyError, OSError) as error:
            # Its text without the statement and its parameters.
            told = getattr(error, "orig", None) or error
            raise OutboxUnavailable(f"{type(told).__name__}: {told}") from error

    async def _work(self, ear: Ear) -> None:
        busy = DoublingPause(_FIRST_BUSY, self._poll)
        while not ear.lost:
            await self._in_touch()
            self._rung.clear()
            match await self._round():
                case _Found.SOMETHING:
                    busy.reset()
                case _Found.NOTHING:
                    busy.reset()
                    until_again = max(self._again_at - self.cache.clock.now(), _LOOK_AGAIN)
                    await self.rest(min(self._poll, until_again) if self._failing else self._poll, self._rung)
                case _Found.OTHERS_FIRST:
                    # They may have looked before what this one was woken for was committed.
                    await self.rest(busy.take())
        raise OutboxUnavailable("the connection that notifications come over was lost")

    async def _in_touch(self) -> None:
        """Wait until the cache reaches its log: before that there is no use in taking rows."""
        looks = 0
        while not self.cache.statistics().connected:
            if looks * _LOOK_AGAIN % self._poll < _LOOK_AGAIN:
                self.note(lag=await self._claims.waiting())
            looks += 1
            await self.rest(_LOOK_AGAIN)

    async def _round(self) -> _Found:
        if self.cache.clock.now() >= self._again_at:
            self._failing.clear()
        async with self._claims.claim(self._failing) as claim:
            if claim is None:
                return _Found.OTHERS_FIRST
            self.note(connected=True, lag=claim.waiting)
            if not claim.rows:
                self._all_well()
                return _Found.NOTHING
            found = [(row, read(row)) for row in claim.rows]
            self.count(received=len(found))
            self.note(waiting=len(found))
            try:
                await self._purge(claim, [(row[0], each) for row, each in found if isinstance(each, Change)])
                await self._refuse(claim, [each for _, each in found if isinstance(each, UnreadableRow)])
            finally:
                self.note(waiting=0)
            # Not before: what fails each time must not be tried without a pause.
            self._all_well()
            return _Found.SOMETHING

    async def _purge(self, claim: Claim, changes: list[tuple[int, Change]]) -> None:
        done: list[int] = []
        try:
            await self._held(claim, self._see_through(changes, done))
        finally:
            # What has been seen through is not done again because of what has not.
            await claim.settle(done)
            self._settled(len(done), done=len(done))

    async def _see_through(self, changes: list[tuple[int, Change]], done: list[int]) -> None:
        for ids, change in in_few(changes):
            await self.purge(change)
            done += ids

    async def _held(self, claim: Claim, work: Coroutine[Any, Any, None]) -> None:
        """Work with the claim held, and on without it when that takes long: a purge that is made twice does no harm."""
        task = asyncio.get_running_loop().create_task(work)
        try:
            if not await done_within(task, self._hold, self.cache):
                await claim.let_go()
                while not await done_within(task, self._poll, self.cache):
                    with contextlib.suppress(SQLAlchemyError, OSError):
                        self.note(lag=await self._claims.waiting())
            await task
        finally:
            await ended(task)

    async def _refuse(self, claim: Claim, rows: list[UnreadableRow]) -> None:
        for row in rows:
            try:
                answer = await self.unreadable(row, UnreadableEvent(row.reason), KEEP)
                if isinstance(answer, Change):
                    await self._held(claim, self.purge(answer))
            except Exception as error:  # noqa: BLE001  # whatever the user's functions raise
                self.troubled(error)
                if not self._failing:
                    self._again_at = self.cache.clock.now() + self._again_after.take()
                self._failing.add(row.id)
                continue
            done, aside = ([], [row.id]) if answer is KEEP else ([row.id], [])
            fate = "deletes it" if done else "sets it aside"
            await claim.settle(done, aside=aside)
            self.refuse(f"{self.name}: row {row.id} cannot be read, and the relay {fate}: {row.reason}")
            self._settled(1)

    def _all_well(self) -> None:
        if not self._failing:
            self._again_after.reset()
            self.well()

    def _settled(self, rows: int, **counts: int) -> None:
        state = self._state
        self.count(**counts)
        self.note(waiting=max(state.waiting - rows, 0), lag=max((state.lag or 0) - rows, 0))


def _as_before(on_poison: Any, row: object, _: Exception) -> Any:
    return on_poison(row)
