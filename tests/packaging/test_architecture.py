"""The page on the architecture and the flow of requests say what the code does."""

from __future__ import annotations

import pytest

from scripts.flow_counts import Flow, flows
from scripts.layers_picture import BEGIN, END, PAGE, picture


@pytest.fixture(scope="module")
def counted() -> dict[str, Flow]:
    """One flow of each kind."""
    return {flow.name: flow for flow in flows()}


def test_the_picture_is_drawn_from_the_imports() -> None:
    """The picture in the page is the one that the imports give: `python -m scripts.layers_picture --write` makes it."""
    drawn = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert drawn == picture()


def test_a_front_hit_makes_three_calls(counted: dict[str, Flow]) -> None:
    """The commonest answer goes through no more than three functions of two files."""
    hit = counted["front hit"]
    assert (hit.calls, len(hit.files)) <= (3, 2)


def test_every_flow_is_counted(counted: dict[str, Flow]) -> None:
    """Each of the seven flows goes through the package, and a hit is always shorter than its miss."""
    assert len(counted) == 7
    assert all(flow.calls for flow in counted.values())
    assert counted["by headers: hit"].calls < counted["by headers: miss"].calls / 2
    assert counted["route hit behind a key"].calls < counted["miss, fill, L2"].calls / 2
