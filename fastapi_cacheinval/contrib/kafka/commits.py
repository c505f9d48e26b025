"""Offsets that stand for what is done, on their way to the broker: one commit at a time, repeated until it is taken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fastapi_cacheinval.contrib.kafka.gathering import Place, Reached

__all__ = ["Commits"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

# Real seconds from one commit to the next, and after one that was refused.
_PAUSE = 0.1
_REFUSED = 1.0


class Commits:
    """`done` is called by the loop, all else by the consumer's thread."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._lock = threading.Lock()
        self._done: dict[Place, Reached] = {}
        self._under_way = False
        self._not_before = 0.0

    def done(self, reached: Mapping[Place, Reached]) -> None:
        """What may be committed."""
        with self._lock:
            self._done.update(reached)

    def due(self, owned: Mapping[Place, int]) -> None:
        """Commit, unless it was done a moment ago or the last one has no answer yet."""
        if not self._under_way and time.monotonic() >= self._not_before:
            self.now(owned)

    def now(self, owned: Mapping[Place, int]) -> None:
        """Commit what is done of the partitions that are held as they were when it was read, and forget the rest."""
        with self._lock:
            self._done = {place: each for place, each in self._done.items() if owned.get(place) == each.epoch}
            offsets = [TopicPartition(*place, each.offset) for place, each in self._done.items()]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._not_before = time.monotonic() + _REFUSED
            logger.debug("offsets cannot be committed now: %s", error.args[0].name())
        else:
            self._under_way = True
            self._not_before = time.monotonic() + _PAUSE

    def answered(self, error: KafkaError | None, partitions: list[TopicPartition]) -> KafkaError | None:
        """A commit was taken or refused; what was taken is forgotten. The refusal, if it is one."""
        self._under_way = False
        refusal = error
        with self._lock:
            for each in partitions:
                refusal = refusal or each.error
                known = self._done.get((each.topic, each.partition))
                if error is None and each.error is None and known is not None and known.offset == each.offset:
                    del self._done[each.topic, each.partition]
        if refusal is not None:
            self._not_before = time.monotonic() + _REFUSED
            logger.debug("offsets were not committed: %s", refusal.name())
        return refusal
