"""The partitions that a consumer holds: where each is read, where it begins without an offset, how far behind it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from fastapi_cacheinval.contrib.kafka.gathering import Place, Reached
from fastapi_cacheinval.contrib.kafka.placing import placed
from fastapi_cacheinval.contrib.kafka.settings import Reset

__all__ = ["Loss", "Partitions"]

logger = logging.getLogger("fastapi_cacheinval.contrib.kafka")

# Real seconds of a question to a broker; between two looks at the lag, and two that ask a broker for it.
_ASKING = 1.0
_LOOKING = 1.0
_ASKING_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class Loss:
    """Events of a partition that can no longer be read, why, and from where it is read on."""

    place: Place
    reached: Reached
    why: str


class Partitions:
    """All calls are the consumer's thread's, but for `holds`; `lag` may be read anywhere."""

    def __init__(self, consumer: Consumer, reset: Reset) -> None:
        self._consumer = consumer
        self._reset: Reset = reset
        self._epoch = 0
        self._next: dict[Place, int] = {}
        self._unplaced: set[Place] = set()
        self._looked = self._asked = 0.0
        # Each with the number of the assignment that gave it: what was read under another one is not committed.
        self.held: dict[Place, int] = {}
        self.lag: int | None = None

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """These are held from now on."""
        self._epoch += 1
        for each in partitions:
            place = (each.topic, each.partition)
            self.held[place] = self._epoch
            self._next.pop(place, None)

    def lost(self, partitions: Iterable[TopicPartition]) -> None:
        """These belong to others, or to nobody."""
        for each in partitions:
            place = (each.topic, each.partition)
            self.held.pop(place, None)
            self._next.pop(place, None)
            self._unplaced.discard(place)

    def holds(self, reached: Mapping[Place, Reached]) -> bool:
        """Whether any of the partitions is still held as it was."""
        return any(self.held.get(place) == each.epoch for place, each in reached.items())

    def read(self, place: Place, offset: int) -> int | None:
        """A record came; the assignment it came under, None where its partition is not held."""
        epoch = self.held.get(place)
        if epoch is not None:
            self._next[place] = offset + 1
        return epoch

    # -- without an offset ----------------------------------------------------------------------

    def misplaced(self, place: Place, offset: int | None) -> None:
        """The client knows no offset to read a partition from, or one that is not there."""
        known = self._next.get(place)
        # What it says of an offset before that is from before the partition was begun anew.
        if known is None or (offset is not None and offset >= known):
            self._unplaced.add(place)

    def place(self) -> list[Loss]:
        """Begin where there is no usable offset, and what was lost by that; tried again where no broker answers."""
        places = sorted(place for place in self._unplaced if place in self.held)
        moves: list[TopicPartition] = []
        losses: list[Loss] = []
        if not places:
            return losses
        try:
            for each in self._consumer.committed([TopicPartition(*place) for place in places], timeout=_ASKING):
                place = (each.topic, each.partition)
                low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), _ASKING)
                found = placed(each.offset if each.offset >= 0 else None, low, high, self._reset)
                moves.append(TopicPartition(each.topic, each.partition, found.offset))
                if found.lost is not None:
                    losses.append(Loss(place, Reached(found.offset, self.held[place]), found.lost))
        except KafkaException as error:
            logger.debug("no offset to begin from is found yet: %s", type(error).__name__)
            return []
        self._unplaced.clear()
        self._move(moves)
        return losses

    def _move(self, moves: list[TopicPartition]) -> None:
        """Read on from other offsets; a partition that had none cannot be sought in, it has to be assigned."""
        for each in moves:
            self._next[each.topic, each.partition] = each.offset
        try:
            self._consumer.incremental_unassign(moves)
            self._consumer.incremental_assign(moves)
        except KafkaException:
            # The protocol of the group knows whole assignments only; what has not been read begins as committed.
            begun = self._next
            self._consumer.assign(
                [
                    TopicPartition(*place) if place not in begun else TopicPartition(place[0], place[1], begun[place])
                    for place in self.held
                ]
            )

    # -- how far behind -------------------------------------------------------------------------

    def look(self, *, paused: bool) -> None:
        """See how far behind it is, by what the client knows; paused, it learns nothing by itself and asks."""
        now = time.monotonic()
        if not self._epoch or now - self._looked < _LOOKING or (paused and now - self._asked < _ASKING_AGAIN):
            return
        self._looked = now
        if paused:
            self._asked = now
        ends = self._asked_ends() if paused else self._known_ends()
        lags = [max(end - self._next[place], 0) for place, end in ends.items() if place in self._next]
        self.lag = sum(lags) if ends or not self.held else None

    def _known_ends(self) -> dict[Place, int]:
        ends: dict[Place, int] = {}
        for place in self.held:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            if high >= 0:
                ends[place] = high
        return ends

    def _asked_ends(self) -> dict[Place, int]:
        wanted = [TopicPartition(place[0], place[1], -1) for place in self.held]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=_ASKING)
        except KafkaException:
            return {}
        return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}
