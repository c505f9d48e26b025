"""What is said of the replicas of a namespace, as they have acknowledged the log."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.core.fleet import Fleet, SeenReplica, summaries_of
from tests.core.test_doctor import LOG, NOW, replica, untold


@pytest.mark.parametrize(
    ("seen", "behind"),
    [
        (replica(applied=100), 0),
        (replica(applied=93), 7),
        (replica(applied=101), 0),
        (replica(applied=-1), None),
        (SeenReplica("left", None, None, None), None),
    ],
    ids=["all", "some", "more than was read of the log", "of another term", "nothing acknowledged"],
)
def test_a_replica_is_behind_by_the_lines_that_it_has_not_read(seen: SeenReplica, behind: int | None) -> None:
    """One that has read no line of this term, or has said nothing, cannot be compared with the log."""
    assert Fleet("shop", NOW, LOG, (seen,)).behind(seen) == behind
    assert Fleet("shop", NOW, None, (seen,)).behind(seen) is None


def test_those_that_have_left_no_summary_are_passed_over() -> None:
    """Sums over replicas need no summary of each."""
    assert summaries_of((untold(1), replica(2))) == [replica(2).summary]
