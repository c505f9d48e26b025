"""`KafkaSource`: what a consumer's thread gathers becomes purges on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException

from fastapi_cacheinval import ConfigurationError, HTTPCache, SourceState
from fastapi_cacheinval.contrib.kafka.consuming import Consuming, Task, Telling
from fastapi_cacheinval.contrib.kafka.gathering import Batch
from fastapi_cacheinval.contrib.kafka.record import Record, TagsOf
from fastapi_cacheinval.contrib.kafka.settings import (
    BrokerUnreachable,
    KafkaTrouble,
    checked_config,
    checked_topics,
    reset_of,
    without_secrets,
)
from fastapi_cacheinval.sources import KEEP, Change, OnUnreadable, Source, Then, UnreadableEvent
from fastapi_cacheinval.sources.changes import causes_in, in_few
from fastapi_cacheinval.sources.handlers import on_unreadable_of

__all__ = ["KafkaSource"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

# Real seconds that a stop waits for the consumer to leave its group; one that hangs is left to itself.
_LEAVING = 2.0


class KafkaSource(Source):
    """Reads topics as a member of a consumer group, and purges what `tags` finds in each record.

    `config` is that of a confluent-kafka consumer, with at least `bootstrap.servers` and `group.id`; `topics` are names
    and, with a leading `^`, patterns. `tags` is called in a thread of its own with each record and returns tags, None
    for a record that changes nothing, or `EVERYTHING`. An offset is committed when the purge has its number and
    `then`, if there is one, has returned. `on_unreadable` answers for a record that `tags` raises for: a `Change` is
    purged in its place, `DROP` passes it, and `KEEP` holds it, and all behind it, and tries it again. Without an answer
    `wide` is purged in its place, and also where offsets or records are gone; by default that is everything. An
    `OSError` of `tags` is not about the record, which is tried again. `on_poison` is the old name of `on_unreadable`.
    One purge has at most `batch_tags` tags (1 to 1,000) of `batch_bytes` together; a record over `max_record_bytes` is
    not read.

    Raises `ConfigurationError` for what cannot work: when made, and at start for what the client refuses.
    """

    def __init__(
        self,
        cache: HTTPCache,
        config: Mapping[str, Any],
        topics: Iterable[str],
        *,
        tags: TagsOf,
        soft: bool = False,
        wide: Iterable[str] | None = None,
        on_unreadable: OnUnreadable | None = None,
        then: Then | None = None,
        on_poison: Any = None,
        name: str = "kafka",
        batch_tags: int = 1000,
        batch_bytes: int = 256 * 1024,
        max_record_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        super().__init__(cache, name, then=then, on_unreadable=on_unreadable_of(on_unreadable, on_poison))
        if not callable(tags) or inspect.iscoroutinefunction(tags):
            raise ConfigurationError("tags is a plain function of a record: it is called in the consumer's thread.")
        if not 1 <= batch_tags <= 1000 or batch_bytes < 1 or max_record_bytes < 1:
            raise ConfigurationError("batch_tags is 1 to 1000; batch_bytes and max_record_bytes are at least 1.")
        self._task_of_thread = Task(
            checked_config(config),
            checked_topics(topics),
            tags,
            reset_of(config),
            _checked_wide(wide, soft=soft),
            soft,
            batch_tags,
            batch_bytes,
            max_record_bytes,
        )
        self._made: _Handle | None = None
        self._handle: _Handle | None = None

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            # A start tells what the client refuses of the configuration; a broker that is away it does not notice.
            self._made = self._open()
        except BaseException:
            await super().__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        made, self._made = self._made, None
        if made is not None:
            made.consuming.discard()

    def state(self) -> SourceState:
        """How it stands; `lag` is what its partitions hold beyond what has come, `ignored` what `tags` counts."""
        ignored: Mapping[str, int] = getattr(self._task_of_thread.tags_of, "ignored", {})
        state, handle = replace(super().state(), ignored=ignored), self._handle
        if handle is None:
            return state
        gathered = handle.consuming.gathered
        return replace(
            state,
            received=state.received + gathered,
            waiting=state.waiting + gathered,
            lag=handle.consuming.lag,
        )

    def _open(self) -> _Handle:
        try:
            # Talking to a broker is not being taken into the group.
            return _Handle(self._task_of_thread, self.reached, self.well, self._unwell)
        except (KafkaException, TypeError, ValueError) as error:
            text = without_secrets(str(error), self._task_of_thread.config)
            raise ConfigurationError(f"The Kafka client refuses the configuration of {self.name}: {text}") from None

    async def serve(self) -> None:
        """Be a member of the group, and purge what its thread gathers."""
        handle = self._made or self._open()
        self._made, self._handle = None, handle
        handle.consuming.start()
        try:
            while True:
                batch = await handle.next()
                self.count(received=batch.records)
                self.note(waiting=batch.records)
                if await self._work(batch, partial(handle.consuming.holds, batch)):
                    handle.consuming.done(batch)
                    self.count(done=batch.records - len(batch.refused))
                    self.well()
                self.note(waiting=0)
        finally:
            await handle.stop()
            self._handle = None
            self.note(waiting=0)

    def _unwell(self, error: Exception) -> None:
        self.troubled(error)
        if isinstance(error, BrokerUnreachable):
            self.note(connected=False)

    # -- one batch ------------------------------------------------------------------------------

    async def _work(self, batch: Batch, held: Callable[[], bool]) -> bool:
        """Purge a batch; False where it was given up, because others have its partitions now."""
        # What can be read does not wait for what cannot.
        if not await self._purge_all(batch.changes, held):
            return False
        for record, error in batch.refused:
            change = await self._read_again(record, error, held)
            if change is None or not await self._purge_all((change,), held):
                return False
        return True

    async def _purge_all(self, changes: Iterable[Change], held: Callable[[], bool]) -> bool:
        task = self._task_of_thread
        for _, change in in_few(((None, each) for each in changes), task.most_tags, task.most_bytes):
            receipt = await self.deliver(change)
            if not await self.repeat(partial(self.tell, receipt), held):
                return False
        return True

    async def _read_again(self, record: Record, error: Exception, held: Callable[[], bool]) -> Change | None:
        """What to purge for a record that could not be read, once that is known; None where it was given up."""
        known: list[Change] = []
        # Of the last reading, while nobody has been asked about it.
        unread: Exception | None = error

        async def attempt() -> None:
            nonlocal unread
            now, unread = unread, None
            known.append(await self._change_of(record, now))

        return known[0] if await self.repeat(attempt, held) else None

    async def _change_of(self, record: Record, error: Exception | None) -> Change:
        """What to purge for a record, by its error or a new reading; raises where it has to be tried again."""
        if error is None:
            try:
                change = await asyncio.to_thread(self._task_of_thread.read, record)
            except UnreadableEvent as again:
                error = again
            else:
                self.count(done=1)
                return change
        if not isinstance(error, UnreadableEvent):
            raise error
        answer = await self.unreadable(record, error, self._task_of_thread.wide)
        if answer is KEEP:
            raise error
        change = answer if isinstance(answer, Change) else Change()
        fate = "purges everything" if change.everything else f"purges {len(change.tags)} tag(s)"
        # Of what a function of the user's raised the type alone is told: its text may quote the record.
        self.refuse(f"{self.name} cannot read {record!r} and {fate} in its place: {error}")
        return replace(change, causes=(*change.causes, *causes_in(record.headers)))


class _Handle:
    """A consumer's thread as the event loop sees it."""

    def __init__(
        self,
        task: Task,
        reached: Callable[[], None],
        well: Callable[[], None],
        unwell: Callable[[Exception], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._error: BaseException | None = None
        self.consuming = Consuming(
            task,
            Telling(
                lambda: self._soon(self._news.set),
                lambda: self._soon(reached),
                lambda: self._soon(well),
                lambda text: self._soon(unwell, BrokerUnreachable(text)),
                lambda text: self._soon(unwell, KafkaTrouble(text)),
                lambda error: self._soon(self._ended, error),
            ),
        )

    def _soon(self, function: Callable[..., object], *values: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:
            # The loop is closed: nobody is left to consume for.
            self.consuming.stop()

    def _ended(self, error: BaseException | None) -> None:
        self._error = error
        self._over.set()
        self._news.set()

    async def next(self) -> Batch:
        """The next batch, once there is one; raises what has ended the thread."""
        while True:
            batch = self.consuming.take()
            if batch is not None:
                return batch
            if self._over.is_set():
                raise self._error or KafkaTrouble("The consumer has ended.")
            await self._news.wait()
            self._news.clear()

    async def stop(self) -> None:
        """Have the thread leave its group, and wait for that a little, whatever cancels meanwhile."""
        self.consuming.stop()
        deadline = self._loop.time() + _LEAVING
        cancelled = False
        while not self._over.is_set() and self._loop.time() < deadline:
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), deadline - self._loop.time())
            except asyncio.CancelledError:
                cancelled = True
        if not self._over.is_set():
            logger.warning("a consumer does not leave its group, and is left to itself: no broker answers it")
        if cancelled:
            raise asyncio.CancelledError


def _checked_wide(wide: Iterable[str] | None, *, soft: bool) -> Change:
    if wide is None:
        return Change((), soft, everything=True)
    found = () if isinstance(wide, str) else tuple(wide)
    if not found or not all(isinstance(tag, str) and tag for tag in found):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"wide is a list of tags, or None for everything, not {wide!r}.")
    return Change(found, soft)
