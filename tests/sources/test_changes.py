"""What an event asks to purge, and how many events become few purges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.sources import EVERYTHING, Change, UnreadableEvent
from fastapi_cacheinval.sources.changes import in_few, read_by

CAUSE = {"traceparent": "00-x"}


@pytest.mark.parametrize(
    ("found", "change"),
    [
        (None, Change(causes=(CAUSE,))),
        ([], Change(soft=True, causes=(CAUSE,))),
        (["a", "b", "a"], Change(("a", "b"), soft=True, causes=(CAUSE,))),
        (iter(["a"]), Change(("a",), soft=True, causes=(CAUSE,))),
        ("ab", Change(("ab",), soft=True, causes=(CAUSE,))),
        (EVERYTHING, Change(soft=True, everything=True, causes=(CAUSE,))),
        (Change(("a",)), Change(("a",), causes=(CAUSE,))),
    ],
)
def test_what_a_function_may_name(found: Any, change: Change) -> None:
    """Any iterable of tags, one tag by itself, nothing, everything, or a change that says itself how soft it is."""
    made = Change.of(found, soft=True, causes=[CAUSE])
    assert (made.tags, made.everything, made.causes) == (change.tags, change.everything, change.causes)
    assert made.soft is (change.soft or found is None)
    assert bool(made) is bool(made.tags or made.everything)


@pytest.mark.parametrize("found", ["", b"a", 5, [5], [""], ["a", None], [b"a"], (str(number) for number in range(11))])
def test_what_names_no_tags_cannot_be_read(found: Any) -> None:
    """No text, an empty one, and more than may be: the error says so, and holds nothing of it."""
    with pytest.raises(UnreadableEvent, match=r"a tag is|more than 10 tags"):
        Change.of(found, most_tags=10)


def test_one_text_is_never_taken_for_a_tuple_of_its_letters() -> None:
    """`Change("products")` is a mistake that is told."""
    with pytest.raises(TypeError, match="a tuple of str"):
        Change("products")  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyError("card 4111"), RuntimeError("x"), RecursionError(), UnreadableEvent("why")])
def test_what_a_function_raises_is_an_event_that_cannot_be_read(error: Exception) -> None:
    """Its type is told, and its text is not; what it says itself is passed on."""

    def fail(event: object) -> None:
        raise error

    with pytest.raises(UnreadableEvent) as told:
        read_by(fail, "event")
    assert "4111" not in str(told.value)
    assert str(told.value) in ("why", f"the function that names its tags raised {type(error).__name__}")


@pytest.mark.parametrize("error", [ConnectionError("away"), TimeoutError("slow"), FileNotFoundError("keys.pem")])
def test_what_waiting_cures_is_not_about_the_event(error: OSError) -> None:
    """It comes out as it is, and the event is tried again."""

    def fail(event: object) -> None:
        raise error

    with pytest.raises(type(error)):
        read_by(fail, "event")


rows = st.lists(
    st.tuples(st.one_of(st.integers(0, 6), st.integers(0, 40)), st.booleans(), st.booleans(), st.integers(1, 9)),
    max_size=12,
)


@given(rows, st.integers(1, 10), st.integers(1, 50))
def test_neighbours_become_one_and_nothing_is_lost_or_moved(
    given_rows: list[Any], most_tags: int, most_bytes: int
) -> None:
    """Events and tags keep their order, no part is over a bound, and none names an event before the last of its tags."""
    made = [
        (
            number,
            Change(
                tuple(f"{number}:{each}".ljust(length, "x") for each in range(tags)),
                soft,
                everything,
                ({"traceparent": str(number)},),
            ),
        )
        for number, (tags, soft, everything, length) in enumerate(given_rows)
    ]
    few = list(in_few(made, most_tags, most_bytes))
    assert [event for events, _ in few for event in events] == list(range(len(made)))
    assert [tag for _, change in few for tag in change.tags] == [tag for _, change in made for tag in change.tags]
    told: set[str] = set()
    for events, change in few:
        assert len(change.tags) <= most_tags
        assert len(change.tags) <= 1 or sum(map(len, change.tags)) <= most_bytes
        told.update(change.tags)
        of = {int(cause["traceparent"]) for cause in change.causes}
        assert of >= {*events, *(int(tag.partition(":")[0]) for tag in change.tags)}
        assert {(made[number][1].soft, made[number][1].everything) for number in of} == {
            (change.soft, change.everything)
        }
        for event in events:
            assert told >= set(made[event][1].tags)


@pytest.mark.parametrize("count", [0, 1, 50, 100])
def test_small_neighbours_are_one_purge(count: int) -> None:
    """A hundred events of the same kind cost one script in Redis."""
    assert len(list(in_few((number, Change((f"{number}",))) for number in range(count)))) == min(count, 1)
