"""The relay: reads the outbox, purges, and deletes what is done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_cacheinval import CacheinvalError, ConfigurationError, HTTPCache, Receipt
from fastapi_cacheinval.contrib._source import Source
from fastapi_cacheinval.contrib._waiting import done_within, ended
from fastapi_cacheinval.contrib.outbox.claiming import Claim, claims
from fastapi_cacheinval.contrib.outbox.reading import Purge, UnreadableRow, in_few, read
from fastapi_cacheinval.contrib.outbox.table import Outbox
from fastapi_cacheinval.contrib.outbox.waking import Ear, listening

__all__ = ["OutboxRelay", "OutboxUnavailable"]

logger = logging.getLogger("fastapi_cacheinval.contrib")

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
    with the receipt of each purge before its rows are deleted; where it raises they are purged again. `on_poison` is
    awaited with each row that cannot be read, which is then deleted; without it, or where it raises, the row stays,
    marked as refused.

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
        then: Callable[[Receipt], Awaitable[None]] | None = None,
        on_poison: Callable[[UnreadableRow], Awaitable[None]] | None = None,
        name: str = "outbox",
    ) -> None:
        super().__init__(cache, name)
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
        self._then = then
        self._on_poison = on_poison
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

    async def _serve(self) -> None:
        engine, channel = self._claims.engine, self._claims.outbox.channel
        try:
            async with self._claims.entered(), listening(engine, channel, self._rung.set) as ear:
                await self._work(ear)
        except (SQLAlchemyError, OSError) as error:
            # Its text without the statement and its parameters.
            told = getattr(error, "orig", None) or error
            raise OutboxUnavailable(f"{type(told).__name__}: {told}") from error

    async def _work(self, ear: Ear) -> None:
        busy = _FIRST_BUSY
        while not ear.lost:
            await self._in_touch()
            self._rung.clear()
            match await self._round():
                case _Found.SOMETHING:
                    busy = _FIRST_BUSY
                case _Found.NOTHING:
                    busy = _FIRST_BUSY
                    await self._rest(self._poll, self._rung)
                case _Found.OTHERS_FIRST:
                    # They may have looked before what this one was woken for was committed.
                    await self._rest(busy)
                    busy = min(busy * 2, self._poll)
        raise OutboxUnavailable("the connection that notifications come over was lost")

    async def _in_touch(self) -> None:
        """Wait until the cache reaches its log: before that there is no use in taking rows."""
        looks = 0
        while not self.cache.statistics().connected:
            if looks * _LOOK_AGAIN % self._poll < _LOOK_AGAIN:
                self._note(lag=await self._claims.waiting())
            looks += 1
            await self._rest(_LOOK_AGAIN)

    async def _round(self) -> _Found:
        async with self._claims.claim() as claim:
            if claim is None:
                return _Found.OTHERS_FIRST
            self._note(connected=True, lag=claim.waiting)
            if not claim.rows:
                self._well()
                return _Found.NOTHING
            found = [read(row) for row in claim.rows]
            self._count(received=len(found))
            self._note(waiting=len(found))
            try:
                await self._purge(claim, [each for each in found if isinstance(each, Purge)])
                await self._refuse(claim, [each for each in found if isinstance(each, UnreadableRow)])
            finally:
                self._note(waiting=0)
            # Not before: what fails each time must not be tried without a pause.
            self._well()
            return _Found.SOMETHING

    async def _purge(self, claim: Claim, purges: list[Purge]) -> None:
        done: list[int] = []
        try:
            await self._held(claim, self._see_through(in_few(purges), done))
        finally:
            # What has been seen through is not done again because of what has not.
            await claim.settle(done)
            self._settled(len(done), done=len(done))

    async def _see_through(self, purges: list[Purge], done: list[int]) -> None:
        for purge in purges:
            if purge.tags or purge.everything:
                receipt = await self.cache.deliver(
                    *purge.tags, soft=purge.soft, everything=purge.everything, causes=purge.causes
                )
                if self._then is not None:
                    await self._then(receipt)
            done += purge.ids

    async def _held(self, claim: Claim, work: Coroutine[Any, Any, None]) -> None:
        """Work with the claim held, and on without it when that takes long: a purge that is made twice does no harm."""
        task = asyncio.get_running_loop().create_task(work)
        try:
            if not await done_within(task, self._hold, self.cache):
                await claim.let_go()
                while not await done_within(task, self._poll, self.cache):
                    with contextlib.suppress(SQLAlchemyError, OSError):
                        self._note(lag=await self._claims.waiting())
            await task
        finally:
            await ended(task)

    async def _refuse(self, claim: Claim, rows: list[UnreadableRow]) -> None:
        for row in rows:
            handled = False
            logger.error("%s: row %d cannot be read: %s", self.name, row.id, row.reason)
            if self._on_poison is not None:
                try:
                    await self._on_poison(row)
                    handled = True
                except Exception:
                    logger.exception("%s: the handler of unreadable rows failed at row %d", self.name, row.id)
            await claim.settle([row.id] if handled else [], aside=[] if handled else [row.id])
            self._settled(1, refused=1)

    def _settled(self, rows: int, **counts: int) -> None:
        state = self._state
        self._count(**counts)
        self._note(waiting=max(state.waiting - rows, 0), lag=max((state.lag or 0) - rows, 0))
