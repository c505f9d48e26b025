"""Fences by themselves: what `Replica` does with them is in `replica/test_rules.py`."""

from __future__ import annotations

from fastapi_cacheinval.core.fences import Fences
from fastapi_cacheinval.core.tags import ALL


def test_more_tags_than_are_fenced_at_a_time_are_everything() -> None:
    """Then any tag is fenced, until that fence is lifted; those before it stand as they did."""
    fences = Fences(most_tags=3)
    few = fences.add(("a", "b"))
    assert (fences.any_of(("a",)), fences.any_of(("x",))) == (True, False)
    many = fences.add(("c", "d"))
    assert set(fences.last) == {"a", "b", ALL}
    assert fences.any_of(("x",))
    fences.lift(few)
    assert fences.any_of(("x",))
    fences.lift(many)
    assert not fences
    room = fences.add(("c", "d", "e"))
    assert not fences.any_of(("x",))
    fences.lift(room)
    assert not fences.last


def test_a_fence_of_everything_is_one_of_each_tag() -> None:
    """Whatever a request renders, it is among them."""
    fences = Fences()
    fences.add((ALL,))
    assert fences.any_of(("a",))
    assert fences.any_of(())
