"""Which offsets are committed, and which never."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from fastapi_cacheinval.contrib.kafka.commits import Commits
from fastapi_cacheinval.contrib.kafka.gathering import Gathering, Reached
from fastapi_cacheinval.contrib.kafka.partitions import Partitions
from fastapi_cacheinval.contrib.kafka.record import Record
from fastapi_cacheinval.sources import Change


class Committing:
    """A consumer that keeps what it is told to commit, or refuses."""

    def __init__(self) -> None:
        self.commits: list[list[tuple[str, int, int]]] = []
        self.refusal: Any = None

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        if self.refusal is not None:
            raise self.refusal
        self.commits.append([(each.topic, each.partition, each.offset) for each in offsets])


def made() -> tuple[Committing, Commits]:
    consumer: Any = Committing()
    return consumer, Commits(consumer)


P, Q = ("t", 0), ("t", 1)


def test_what_was_read_under_an_earlier_assignment_is_not_committed() -> None:
    """Gone and come again: others may be further, or behind; what is committed was read since."""
    consumer, commits = made()
    commits.done({P: Reached(5, epoch=1), Q: Reached(7, epoch=2)})
    commits.due({P: 3, Q: 2})
    assert consumer.commits == [[("t", 1, 7)]]
    commits.now({P: 1, Q: 2})
    # What was dropped is not remembered.
    assert consumer.commits[1:] == [[("t", 1, 7)]]


def test_nothing_is_committed_for_partitions_that_are_not_held() -> None:
    """Not even tried."""
    consumer, commits = made()
    commits.done({P: Reached(5, epoch=1)})
    commits.due({})
    commits.now({})
    assert consumer.commits == []


def test_one_commit_at_a_time_and_what_is_taken_is_forgotten() -> None:
    """While one has no answer none is sent; what was done meanwhile goes with the next."""
    consumer, commits = made()
    commits.done({P: Reached(5, epoch=1)})
    commits.due({P: 1})
    commits.done({P: Reached(9, epoch=1)})
    commits.due({P: 1})
    assert consumer.commits == [[("t", 0, 5)]]
    assert commits.answered(None, [TopicPartition("t", 0, 5)]) is None
    commits.now({P: 1})
    assert consumer.commits[1:] == [[("t", 0, 9)]]
    commits.answered(None, [TopicPartition("t", 0, 9)])
    commits.now({P: 1})
    assert len(consumer.commits) == 2


def test_a_refused_commit_is_repeated() -> None:
    """Refused by the broker or by the client itself: it stays to be done."""
    consumer, commits = made()
    commits.done({P: Reached(5, epoch=1)})
    consumer.refusal = KafkaException(KafkaError(KafkaError._STATE))
    commits.due({P: 1})
    consumer.refusal = None
    commits.now({P: 1})
    error = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    assert commits.answered(error, [TopicPartition("t", 0, 5)]) == error
    commits.now({P: 1})
    assert consumer.commits == [[("t", 0, 5)], [("t", 0, 5)]]


def test_an_assignment_is_known_by_its_number() -> None:
    """A partition that was lost and came again is held, but not as it was."""
    consumer: Any = None
    partitions = Partitions(consumer, "latest")
    partitions.assigned([TopicPartition("t", 0), TopicPartition("t", 1)])
    before = {P: Reached(5, partitions.read(P, 4) or 0)}
    assert partitions.holds(before)
    partitions.lost([TopicPartition("t", 0)])
    assert partitions.read(P, 5) is None
    assert not partitions.holds(before)
    partitions.assigned([TopicPartition("t", 0)])
    assert not partitions.holds(before)
    assert partitions.holds({P: Reached(5, partitions.read(P, 4) or 0)})
    assert partitions.holds({**before, Q: Reached(1, partitions.read(Q, 0) or 0)})


def test_a_batch_stands_for_the_last_record_of_each_partition() -> None:
    """Its offsets are those after the last records, under the assignment of these."""
    gathering = Gathering(most_tags=10, most_bytes=100)
    for partition, offset, epoch in ((0, 3, 1), (1, 8, 1), (0, 4, 1), (0, 2, 2)):
        gathering.add(Record("t", partition, offset), Change(("a",)), epoch)
    batch = gathering.take()
    assert batch.reached == {P: Reached(3, 2), Q: Reached(9, 1)}
    assert (batch.records, batch.changes) == (4, (Change(("a",)),))
    assert gathering.empty
    assert gathering.take().reached == {}


def test_everything_takes_the_place_of_tags_and_bounds_are_kept() -> None:
    """A batch is full by its tags, by their bytes, or by what is kept of records that cannot be read."""
    gathering = Gathering(most_tags=3, most_bytes=100)
    gathering.add(Record("t", 0, 0), Change(("a", "b")), 1)
    assert not gathering.full
    gathering.add(Record("t", 0, 1), Change(("b", "c"), everything=True), 1)
    assert gathering.full
    assert gathering.take().changes == (Change(everything=True),)
    gathering.add(Record("t", 0, 2, value=b"x" * 100), ValueError(), 1)
    assert gathering.full
    assert gathering.take().changes == ()
    gathering.add(Record("t", 0, 3), Change(("x" * 100,)), 1)
    assert gathering.full


def test_soft_and_hard_changes_are_purged_apart() -> None:
    """A function that says so for each record is taken at its word, and the traces go with both."""
    gathering = Gathering(most_tags=10, most_bytes=100)
    cause = {"traceparent": "00-x"}
    for offset, change in enumerate(
        (Change(("a",), causes=(cause,)), Change(("a", "b"), soft=True), Change(("c",)), Change((), True, True))
    ):
        gathering.add(Record("t", 0, offset), change, 1)
    assert gathering.take().changes == (
        Change(("a", "c"), causes=(cause,)),
        Change((), soft=True, everything=True, causes=(cause,)),
    )
