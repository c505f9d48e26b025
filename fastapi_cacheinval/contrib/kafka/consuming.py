"""The thread that owns a consumer: it polls, reads, commits what is done, and keeps its place in the group.

The client belongs to one thread and blocks; the event loop meets it here only, under one lock, and never waits for it.
While what was gathered is not taken (Redis is away), its partitions are paused and polling goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from fastapi_cacheinval.contrib.kafka.commits import Commits
from fastapi_cacheinval.contrib.kafka.gathering import Batch, Gathering
from fastapi_cacheinval.contrib.kafka.partitions import Partitions
from fastapi_cacheinval.contrib.kafka.reach import Reach
from fastapi_cacheinval.contrib.kafka.record import Record, TagsOf, read
from fastapi_cacheinval.contrib.kafka.settings import KafkaTrouble, Reset, without_secrets
from fastapi_cacheinval.sources import Change

__all__ = ["Consuming", "Task", "Telling"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

# Real seconds: of one poll, hence until a word from the loop is seen; of a full batch before partitions are paused.
_TICK = 0.1
_PATIENCE = 1.0

# What a message of the consumer says in passing.
_IN_PASSING = frozenset({KafkaError._PARTITION_EOF, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT})  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Task:
    """What is consumed, and how."""

    config: Mapping[str, Any]
    topics: list[str]
    tags_of: TagsOf
    reset: Reset
    wide: Change
    soft: bool
    most_tags: int
    most_bytes: int
    most_record_bytes: int
    # The user's function is in one thread at a time, whoever calls it.
    reading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, record: Record) -> Change:
        """What a record asks to purge; raises as `record.read` does."""
        with self.reading:
            return read(record, self.tags_of, self.most_record_bytes, soft=self.soft)


@dataclass(frozen=True, slots=True)
class Telling:
    """What the thread calls, from itself: it must only pass it on. `ended` is last, with the error that ended it."""

    news: Callable[[], None]
    reached: Callable[[], None]
    well: Callable[[], None]
    away: Callable[[str], None]
    trouble: Callable[[str], None]
    ended: Callable[[BaseException | None], None]


class _ClientLog:
    """The client's own log: its troubles are told by the source, once each, so here they are details."""

    def log(self, level: int, text: str, *values: object) -> None:
        logger.debug(text, *values)


class Consuming:
    """One consumer, from its making to its close."""

    def __init__(self, task: Task, telling: Telling) -> None:
        self._task = task
        self._telling = telling
        self._lock = threading.Condition()
        self._gathering = Gathering(task.most_tags, task.most_bytes)
        self._stopping = threading.Event()
        self._full_since: float | None = None
        self._paused = False
        # Partitions have come since it was paused.
        self._pause_again = False
        self._fatal: KafkaError | None = None
        self._consumer = Consumer(
            {
                "logger": _ClientLog(),
                **task.config,
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
            }
        )
        self._reach = Reach(self._consumer, task.topics, lambda text: without_secrets(text, task.config), telling.away)
        self._commits = Commits(self._consumer)
        self._partitions = Partitions(self._consumer, task.reset)

    # -- the loop's side ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in a thread that no exit of the process waits for."""
        threading.Thread(target=self._run, name="cacheinval kafka", daemon=True).start()

    def stop(self) -> None:
        """Have it end; `ended` is told then."""
        self._stopping.set()
        with self._lock:
            self._lock.notify_all()

    def discard(self) -> None:
        """Give up one that was never started."""
        self._consumer.close()

    def take(self) -> Batch | None:
        """What was gathered, if anything was."""
        with self._lock:
            if self._gathering.empty:
                return None
            batch = self._gathering.take()
            self._lock.notify_all()
            return batch

    def done(self, batch: Batch) -> None:
        """A batch was seen through: its offsets may be committed, where its partitions are still held."""
        self._commits.done(batch.reached)

    def holds(self, batch: Batch) -> bool:
        """Whether any partition of a batch is still held as it was."""
        return self._partitions.holds(batch.reached)

    @property
    def lag(self) -> int | None:
        """Records beyond those that have come, None where that is not known."""
        return self._partitions.lag

    @property
    def gathered(self) -> int:
        """Records that have come and are not taken."""
        return self._gathering.records

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            if self._reach.reached(self._stopping):
                self._telling.reached()
                self._consumer.subscribe(
                    self._task.topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
                )
            while not self._stopping.is_set():
                self._turn()
        except BaseException as raised:  # noqa: BLE001  # the loop is told, and raises it
            error = raised
        finally:
            self._close()
            self._telling.ended(error)

    def _turn(self) -> None:
        if self._fatal is not None:
            raise KafkaTrouble(self._reach.said(self._fatal))
        if self._reach.back():
            self._telling.well()
        if not self._reach.away:
            self._commits.due(self._partitions.held)
            self._place()
            self._partitions.look(paused=self._paused)
        if not self._ready():
            return
        message = self._consumer.poll(_TICK)
        until = time.monotonic() + _TICK
        while message is not None:
            self._came(message)
            if self._gathering.full or self._stopping.is_set() or time.monotonic() > until:
                return
            message = self._consumer.poll(0)

    def _ready(self) -> bool:
        """Whether to poll now: with a full batch it waits for the loop, then pauses what it holds and polls on."""
        now = time.monotonic()
        with self._lock:
            if self._gathering.full and not self._paused:
                self._full_since = self._full_since or now
                self._lock.wait_for(lambda: not self._gathering.full or self._stopping.is_set(), _TICK)
            full = self._gathering.full
        if full and not self._paused and now - (self._full_since or now) < _PATIENCE:
            return False
        if full and (not self._paused or self._pause_again):
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        elif self._paused and not full:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False
        if not full:
            self._full_since = None
        self._pause_again = False
        return True

    def _came(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._complained(message, error)
            return
        record = Record.of(message)
        place = (record.topic, record.partition)
        epoch = self._partitions.read(place, record.offset)
        if epoch is None:
            return
        found = self._read(record)
        with self._lock:
            first = self._gathering.empty
            self._gathering.add(record, found, epoch)
        if first:
            self._telling.news()

    def _read(self, record: Record) -> Change | Exception:
        try:
            return self._task.read(record)
        except Exception as error:  # noqa: BLE001  # a record must not stop those behind it, whatever is wrong with it
            return error

    def _complained(self, message: Message, error: KafkaError) -> None:
        code = error.code()
        topic, partition = message.topic(), message.partition()
        if code == KafkaError._AUTO_OFFSET_RESET and topic is not None and partition is not None:  # noqa: SLF001
            self._partitions.misplaced((topic, partition), message.offset())
        elif error.fatal() or code in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED):
            raise KafkaTrouble(self._reach.said(error))
        elif code == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001
            logger.warning("the group took its partitions away: a record took longer than max.poll.interval.ms")
        elif code not in _IN_PASSING:
            self._telling.trouble(self._reach.said(error))

    # -- partitions -----------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._partitions.assigned(partitions)
        self._pause_again = True
        self._telling.well()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._reach.away:
            # The client sends it before it gives them up.
            self._commits.now(self._partitions.held)
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._partitions.lost(partitions)

    def _place(self) -> None:
        """Begin where there is no usable offset, and have purged what was lost."""
        losses = self._partitions.place()
        for loss in losses:
            logger.error(
                "events of %s[%d] may be lost: %s. %s is purged in their place, and reading goes on from offset %d",
                *loss.place,
                loss.why,
                "Everything" if self._task.wide.everything else "What was configured as wide",
                loss.reached.offset,
            )
            with self._lock:
                self._gathering.lose(loss.place, loss.reached, self._task.wide)
        if losses:
            self._pause_again = True
            self._telling.news()

    # -- what it tells --------------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        self._reach.failed(error)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        refusal = self._commits.answered(error, partitions)
        if refusal is not None and refusal.code() in (
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
        ):
            self._telling.trouble(f"Offsets are not committed: {self._reach.said(refusal)}")

    def _close(self) -> None:
        try:
            # What it holds is revoked by that, and committed then.
            self._consumer.close()
        except Exception as error:  # noqa: BLE001  # it is given up, whatever it says to that
            logger.debug("the consumer was not closed: %s", type(error).__name__)
