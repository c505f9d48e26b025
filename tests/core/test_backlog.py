"""Purges without a number, and those that may have to be written again."""

from __future__ import annotations

from fastapi_cacheinval.core.backlog import Backlog, Recent
from fastapi_cacheinval.core.pieces import LINE_TAG_BYTES
from fastapi_cacheinval.core.tags import ALL


def test_what_is_queued_together_shares_a_line_hard_and_soft_apart() -> None:
    """The order of hard and soft is kept, and a line names each tag once."""
    backlog = Backlog()
    backlog.add(("a", "b"), soft=False, fence=1)
    backlog.add(("b", "c"), soft=False, fence=2)
    backlog.add(("d",), soft=True)
    first = backlog.due()
    assert first is not None
    assert (first.tags, first.soft, first.fences) == (("a", "b", "c"), False, (1, 2))
    assert backlog.written(first) == (1, 2)
    second = backlog.due()
    assert second is not None
    assert (second.tags, second.soft, second.fences) == (("d",), True, ())
    backlog.written(second)
    assert backlog.due() is None


def test_a_line_has_a_bounded_number_of_tags() -> None:
    """What does not fit waits for the next line; a purge that is larger than a line is written by itself."""
    backlog = Backlog(most_tags=3)
    backlog.add(("a", "b"), soft=False)
    backlog.add(("c", "d"), soft=False)
    backlog.add(("e", "f", "g", "h"), soft=False)
    lines = []
    while (due := backlog.due()) is not None:
        lines.append(due.tags)
        backlog.written(due)
    assert lines == [("a", "b"), ("c", "d"), ("e", "f", "g", "h")]


def test_a_full_queue_becomes_one_purge_of_everything() -> None:
    """Nothing is lost, not a fence either, whatever was being written meanwhile."""
    backlog = Backlog(most_entries=2)
    backlog.add(("a",), soft=False, fence=1)
    backlog.add(("b",), soft=True)
    on_its_way = backlog.due()
    assert on_its_way is not None
    backlog.add(("c",), soft=False, fence=3)
    assert len(backlog) == 1
    assert backlog.written(on_its_way) == ()
    due = backlog.due()
    assert due is not None
    assert (due.tags, due.soft, due.fences) == ((ALL,), False, (1, 3))
    assert backlog.written(due) == (1, 3)
    assert len(backlog) == 0


def test_recent_purges_are_given_once_and_only_while_they_are_young() -> None:
    """Oldest first, without what is older than the while that is covered, and no more than the last ones."""
    recent = Recent(seconds=10.0, most=2)
    recent.add(("a",), soft=False, now=0.0)
    recent.add(("b",), soft=True, now=5.0)
    recent.add(("c",), soft=False, now=6.0)
    assert recent.take(15.5) == [(("c",), False)]
    assert recent.take(15.5) == []


def test_a_line_has_a_bounded_number_of_bytes() -> None:
    """Each is written and applied in a short time."""
    backlog = Backlog()
    long = "x" * 1_000
    for number in range(100):
        backlog.add((f"{number:03}{long}",), soft=False)
    sizes = []
    while (due := backlog.due()) is not None:
        sizes.append(sum(map(len, due.tags)))
        backlog.written(due)
    assert len(sizes) == 2
    assert max(sizes) <= LINE_TAG_BYTES


def test_what_cannot_be_written_lets_the_others_pass() -> None:
    """It waits behind them, with its fence; what is gone meanwhile does not come back."""
    backlog = Backlog()
    backlog.add(tuple(f"tag:{number}" for number in range(2_000)), soft=False, fence=1)
    backlog.add(("a",), soft=True)
    backlog.add(("b",), soft=False, fence=2)
    order: list[str] = []
    fences: list[int] = []
    for _ in range(4):
        due = backlog.due()
        assert due is not None
        order.append(due.tags[0])
        if len(order) == 1:
            backlog.postpone(due)
            continue
        fences += backlog.written(due)
        backlog.postpone(due)
    assert order == ["tag:0", "a", "b", "tag:0"]
    assert fences == [2, 1]
    assert backlog.due() is None


def test_a_queue_of_too_many_tags_becomes_one_purge_of_everything() -> None:
    """Few large purges are as much as many small ones; fences go along, and room comes back with what is written."""
    backlog = Backlog(most_queued=5)
    backlog.add(("a", "b", "c"), soft=False, fence=1)
    first = backlog.due()
    assert first is not None
    backlog.written(first)
    backlog.add(("d", "e", "f"), soft=False, fence=2)
    backlog.add(("g", "h"), soft=True)
    assert len(backlog) == 2
    backlog.add(("i",), soft=False, fence=3)
    due = backlog.due()
    assert due is not None
    assert (due.tags, due.soft, due.fences) == ((ALL,), False, (2, 3))


def test_many_tags_of_recent_purges_are_remembered_as_everything() -> None:
    """What is written again in a new term is bounded, and nothing of it is forgotten."""
    recent = Recent(most=10, most_tags=4)
    for number in range(3):
        recent.add((f"{number}",), soft=False, now=0.0)
    assert len(recent.take(0.0)) == 3
    recent.add(("a", "b", "c"), soft=True, now=0.0)
    recent.add(("d", "e"), soft=False, now=1.0)
    recent.add(("f",), soft=False, now=2.0)
    assert recent.take(2.0) == [((ALL,), False), (("f",), False)]
    assert recent.take(2.0) == []
