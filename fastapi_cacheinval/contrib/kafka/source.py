"""`KafkaSource`: what a consumer's thread gathers becomes purges on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException

from fastapi_cacheinval import ConfigurationError, HTTPCache, Receipt, SourceState
from fastapi_cacheinval.contrib._source import Source
from fastapi_cacheinval.contrib.kafka.consuming import Consuming, Task, Telling
from fastapi_cacheinval.contrib.kafka.gathering import Batch, parts
from fastapi_cacheinval.contrib.kafka.record import PoisonRecord, Reading, Record, read
from fastapi_cacheinval.contrib.kafka.settings import (
    BrokerUnreachable,
    KafkaTrouble,
    checked_config,
    checked_topics,
    reset_of,
    without_secrets,
)

__all__ = ["KafkaSource"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

Then = Callable[[Receipt], Awaitable[None]]
OnPoison = Callable[[Record, Exception], Awaitable[Iterable[str] | None]]

# Real seconds that a stop waits for the consumer to leave its group; one that hangs is left to itself.
_LEAVING = 2.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0


class KafkaSource(Source):
    """Reads topics as a member of a consumer group, and purges what `tags` finds in each record.

    `config` is that of a confluent-kafka consumer, with at least `bootstrap.servers` and `group.id`; `topics` are names
    and, with a leading `^`, patterns. `tags` is called in a thread of its own with each record and returns tags, None
    for a record that changes nothing, or `EVERYTHING`. An offset is committed when the purge has its number and
    `then`, if there is one, has returned. A record that `tags` raises for is counted as refused, handed to `on_poison`
    and passed; tags that `on_poison` returns are purged in its place. Where offsets or records are gone, `wide` is
    purged, by default everything. One purge has at most `batch_tags` tags (1 to 1,000) of `batch_bytes` together; a
    record over `max_record_bytes` is not read.

    Raises `ConfigurationError` for what cannot work: when made, and at start for what the client refuses.
    """

    def __init__(
        self,
        cache: HTTPCache,
        config: Mapping[str, Any],
        topics: Iterable[str],
        *,
        tags: Callable[[Record], Iterable[str] | None],
        soft: bool = False,
        wide: Iterable[str] | None = None,
        on_poison: OnPoison | None = None,
        then: Then | None = None,
        name: str = "kafka",
        batch_tags: int = 1000,
        batch_bytes: int = 256 * 1024,
        max_record_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        super().__init__(cache, name)
        if not callable(tags) or inspect.iscoroutinefunction(tags):
            raise ConfigurationError("tags is a plain function of a record: it is called in the consumer's thread.")
        for what, function in (("then", then), ("on_poison", on_poison)):
            if function is not None and not callable(function):  # pyright: ignore[reportUnnecessaryComparison]
                raise ConfigurationError(f"{what} is an async function, not {function!r}.")
        if not 1 <= batch_tags <= 1000 or batch_bytes < 1 or max_record_bytes < 1:
            raise ConfigurationError("batch_tags is 1 to 1000; batch_bytes and max_record_bytes are at least 1.")
        self._soft = soft
        self._on_poison = on_poison
        self._then = then
        self._task_of_thread = Task(
            checked_config(config),
            checked_topics(topics),
            tags,
            reset_of(config),
            None if wide is None else _checked_wide(wide),
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
        """How it stands; `lag` is what its partitions hold beyond what has come."""
        state, handle = super().state(), self._handle
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
            return _Handle(self._task_of_thread, self._reached, self._well, self._unwell)
        except (KafkaException, TypeError, ValueError) as error:
            text = without_secrets(str(error), self._task_of_thread.config)
            raise ConfigurationError(f"The Kafka client refuses the configuration of {self.name}: {text}") from None

    async def _serve(self) -> None:
        handle = self._made or self._open()
        self._made, self._handle = None, handle
        handle.consuming.start()
        try:
            while True:
                batch = await handle.next()
                self._count(received=batch.records)
                self._note(waiting=batch.records)
                if await self._work(batch, handle.consuming):
                    handle.consuming.done(batch)
                    self._count(done=batch.records - len(batch.refused), refused=len(batch.refused))
                    self._well()
                self._note(waiting=0)
        finally:
            await handle.stop()
            self._handle = None
            self._note(waiting=0)

    def _reached(self) -> None:
        # Talking to a broker is not being taken into the group: pauses between attempts go on growing until then.
        pause = self._pause
        self._well()
        self._pause = pause

    def _unwell(self, error: Exception) -> None:
        self._failed(error)
        if isinstance(error, BrokerUnreachable):
            self._note(connected=False)

    # -- one batch ------------------------------------------------------------------------------

    async def _work(self, batch: Batch, consuming: Consuming) -> bool:
        """Purge a batch; False where it was given up, because others have its partitions now."""
        tags, everything = dict.fromkeys(batch.tags), batch.everything
        for record, error in batch.refused:
            found = await self._refused(record, error)
            tags.update(dict.fromkeys(found.tags))
            everything |= found.everything
        named = () if everything else tuple(tags)
        for part in (
            [()] if everything else parts(named, self._task_of_thread.most_tags, self._task_of_thread.most_bytes)
        ):
            receipt = await self.cache.deliver(*part, soft=self._soft, everything=everything, causes=batch.causes)
            if not await self._handed_on(receipt, batch, consuming):
                return False
        return True

    async def _handed_on(self, receipt: Receipt, batch: Batch, consuming: Consuming) -> bool:
        pause = _FIRST_PAUSE
        while self._then is not None:
            try:
                await self._then(receipt)
            except Exception as error:  # noqa: BLE001  # whatever the user's function raises
                self._failed(error)
            else:
                return True
            if not consuming.holds(batch):
                return False
            await self._rest(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return True

    async def _refused(self, record: Record, error: Exception) -> Reading:
        """Report a record that cannot be read; what is to be purged in its place."""
        logger.error(
            "%s passes a record that it cannot read, %r: %s",
            self.name,
            record,
            error if isinstance(error, PoisonRecord) else type(error).__name__,
        )
        if self._on_poison is None:
            return Reading()
        try:
            found = await self._on_poison(record, error)
        except Exception as failure:  # noqa: BLE001  # whatever the user's function raises
            logger.error("%s: on_poison failed as well: %s", self.name, type(failure).__name__)  # noqa: TRY400
            return Reading()
        reading = read(replace(record, key=None, value=None), lambda _: found, 0)
        if reading.error is not None:
            logger.error("%s: on_poison returned what are no tags", self.name)
        return reading


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


def _checked_wide(wide: Iterable[str]) -> tuple[str, ...]:
    found = () if isinstance(wide, str) else tuple(wide)
    if not found or not all(isinstance(tag, str) and tag for tag in found):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"wide is a list of tags, or None for everything, not {wide!r}.")
    return found
