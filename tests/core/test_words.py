"""Text for people is short."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.core.words import cut, few, in_unit


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [("lamp", 4, "lamp"), ("lamps", 4, "lam…"), ("lamps", 1, "…"), ("", 0, ""), ("lamps", 0, "…")],
)
def test_a_text_is_cut(text: str, most: int, shown: str) -> None:
    """The ellipsis counts as a character, and stands alone where there is room for no other."""
    assert cut(text, most) == shown


@pytest.mark.parametrize(
    ("count", "told"), [(0, ""), (1, "0"), (2, "0, 1"), (3, "0, 1 and 1 more"), (2_002, "0, 1 and 2,000 more")]
)
def test_the_first_are_named_and_the_others_counted(count: int, told: str) -> None:
    """As many as may be named are named."""
    assert few(range(count), 2) == told


def test_only_what_is_named_is_written() -> None:
    """A purge may have thousands of tags, of which five are shown."""
    written: list[int] = []

    def name(number: int) -> str:
        written.append(number)
        return f"<{number}>"

    assert few(range(1_000), 2, name) == "<0>, <1> and 998 more"
    assert written == [0, 1]


@pytest.mark.parametrize(
    ("seconds", "value", "unit"), [(0, 0, "s"), (119, 119, "s"), (120, 2, "min"), (7_200, 2, "h"), (259_200, 3, "d")]
)
def test_a_time_has_a_unit_of_its_size(seconds: float, value: float, unit: str) -> None:
    """The largest that it holds twice."""
    assert in_unit(seconds) == (value, unit)
