"""The memory of keys that were let go of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.stores.order import Ghosts


@given(st.integers(1, 400), st.integers(1, 400))
def test_a_key_is_remembered_within_reach_only(later, reach):
    """Whatever else is forgotten, no key is taken for a ghost once more evictions than the reach came after it."""
    ghosts = Ghosts()
    ghosts.hold(1000)
    ghosts.add(b"key")
    for number in range(later):
        ghosts.add(b"other-%d" % number)
    if ghosts.take(b"key", reach):
        assert later < reach


def test_most_of_the_last_are_remembered():
    """Of the last thousand evictions, at least 650 are still known when the table just holds a thousand."""
    ghosts = Ghosts()
    ghosts.hold(1000)
    for number in range(5000):
        ghosts.add(b"key-%d" % number)
    assert sum(ghosts.take(b"key-%d" % number, 1000) for number in range(4000, 5000)) > 650


def test_a_ghost_is_taken_once():
    """A key that came back is no ghost any more; one that was never let go of is none."""
    ghosts = Ghosts()
    ghosts.add(b"key")
    assert ghosts.take(b"key", 10)
    assert not ghosts.take(b"key", 10)
    assert not ghosts.take(b"stranger", 10)


def test_growing_forgets_nothing():
    """A table that grows with the store keeps whom it remembered."""
    ghosts = Ghosts()
    # Each in a pair of places of its own, or the small table would have forgotten some before it grew.
    keys = list({hash(key) & 63 >> 1 << 1: key for key in (b"key-%d" % number for number in range(1000))}.values())[:20]
    assert len(keys) == 20
    for key in keys:
        ghosts.add(key)
    ghosts.hold(5000)
    assert all(ghosts.take(key, 5000) for key in keys)
    assert ghosts.size_bytes < 16 * 5000
