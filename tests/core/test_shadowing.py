"""How sure comparisons make one, as pure arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import ShadowStatistics
from fastapi_cacheinval.core.shadowing import equal_at_least


@pytest.mark.parametrize(
    ("compared", "different", "least"),
    [
        (0, 0, 0.0),
        (1, 0, 0.05),
        (100, 0, 0.97049),
        (10, 10, 0.0),
    ],
)
def test_without_a_difference_the_bound_is_exact(compared: int, different: int, least: float) -> None:
    """So many equal answers in a row have a chance of 5 % at the share that is told; next to 1 that is three in n."""
    assert equal_at_least(compared, different) == pytest.approx(least, abs=5e-5)
    if compared > 50 and not different:
        assert equal_at_least(compared, 0) == pytest.approx(1 - 3 / compared, abs=0.1 / compared)


@given(st.integers(1, 10**6), st.data())
def test_with_differences_it_is_wilsons(compared: int, data: st.DataObject) -> None:
    """What was seen lies 1.645 standard deviations over the share that is told, as Wilson's interval is defined."""
    different = data.draw(st.integers(1, compared))
    share, least = 1 - different / compared, equal_at_least(compared, different)
    if share:
        assert (share - least) ** 2 * compared == pytest.approx(1.6449**2 * least * (1 - least), rel=1e-3, abs=1e-9)


@given(st.integers(0, 10**7), st.data())
def test_the_bound_is_never_over_what_was_seen(compared: int, data: st.DataObject) -> None:
    """It lies between 0 and the share that was equal, and more comparisons without a difference only raise it."""
    different = data.draw(st.integers(0, compared))
    least = equal_at_least(compared, different)
    assert 0 <= least <= 1
    if compared:
        assert least <= 1 - different / compared + 1e-12
    assert equal_at_least(compared + 1, 0) >= equal_at_least(compared, 0)


@pytest.mark.parametrize(
    ("compared", "different", "said"),
    [
        (0, 0, "nothing compared"),
        (41_200, 0, "99.99 % equal, 95 % sure, 41,200 compared"),
        (20, 0, "86.08 % equal, 95 % sure, 20 compared"),
        (1_000_000, 3, "99.999 % equal, 95 % sure, 1,000,000 compared"),
        (10, 10, "0.00 % equal, 95 % sure, 10 compared"),
    ],
)
def test_it_is_said_in_nines_and_never_rounded_up(compared: int, different: int, said: str) -> None:
    """The text that people read."""
    assert str(ShadowStatistics(compared=compared, different=different)) == said
