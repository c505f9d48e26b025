"""The page on the architecture and the flow of requests say what the code does."""

from __future__ import annotations

import pytest

from scripts.flow_counts import Flow, flows
from scripts.layers_picture import BEGIN, END, PAGE, picture

# Calls and files of one request of each kind, as `python -m scripts.flow_counts` prints them.
BUDGETS = {
    "miss, fill, L2": (408, 66),
    "front hit": (3, 2),
    "route hit behind a key": (68, 23),
    "PUT, and its apply on another replica": (358, 53),
    "stale, and its refresh": (472, 70),
    "by headers: miss": (555, 84),
    "by headers: hit": (113, 35),
}
PLAY = 1.05


@pytest.fixture(scope="module")
def counted() -> dict[str, Flow]:
    """One flow of each kind."""
    return {flow.name: flow for flow in flows()}


def test_the_picture_is_drawn_from_the_imports() -> None:
    """The picture in the page is the one that the imports give: `python -m scripts.layers_picture --write` makes it."""
    drawn = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert drawn == picture()


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_each_flow_keeps_to_its_budget(counted: dict[str, Flow], name: str) -> None:
    """A feature that adds to a flow says so here: calls and files are at most what stands above, with 5 % of play."""
    flow, (calls, files) = counted[name], BUDGETS[name]
    assert flow.calls <= calls * PLAY
    assert len(flow.files) <= files * PLAY


def test_every_flow_is_counted(counted: dict[str, Flow]) -> None:
    """Each of the seven flows goes through the package, and a hit is always shorter than its miss."""
    assert len(counted) == 7
    assert all(flow.calls for flow in counted.values())
    assert counted["by headers: hit"].calls < counted["by headers: miss"].calls / 2
    assert counted["route hit behind a key"].calls < counted["miss, fill, L2"].calls / 2
