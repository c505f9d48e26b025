"""One purge as bounded lines, and one reply as bounded parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.log_types import Current, LogEntry, Missed, Reset, Term
from fastapi_cacheinval.core.pieces import LINE_TAG_BYTES, LINE_TAGS, in_pieces, in_slices
from fastapi_cacheinval.core.tag_limits import size_of
from fastapi_cacheinval.ports.log import Proposal

_TERM = Term(1, "t")


@given(st.lists(st.text(max_size=12), unique=True).map(tuple), st.integers(1, 5), st.integers(1, 40))
def test_pieces_are_the_tags_in_order_and_within_the_limits(tags: tuple[str, ...], most: int, size: int) -> None:
    """Nothing is lost or doubled; a piece is larger than its bytes allow only where it is one tag."""
    pieces = list(in_pieces(tags, most, size))
    assert sum(pieces, ()) == tags
    assert len(pieces) >= 1
    for piece in pieces:
        assert len(piece) <= most
        assert len(piece) <= 1 or size_of(piece) <= size


def test_an_ordinary_purge_is_one_line() -> None:
    """As it was, with its trace context."""
    proposal = Proposal(("a", "b"), soft=True, trace=(("traceparent", "x"),), prompt=True)
    assert list(proposal.lines()) == [proposal]


def test_the_last_line_of_a_large_purge_ends_it() -> None:
    """It alone counts as a purge, has the trace context, and asks for haste."""
    tags = tuple(f"{number:0100}" for number in range(2_500))
    proposal = Proposal(tags, soft=True, trace=(("traceparent", "x"),), prompt=True)
    lines = list(proposal.lines())
    assert sum((line.tags for line in lines), ()) == tags
    assert {line.soft for line in lines} == {True}
    assert [line.purges for line in lines] == [0] * (len(lines) - 1) + [1]
    assert [(line.trace, line.prompt) for line in lines[:-1]] == [((), False)] * (len(lines) - 1)
    assert (lines[-1].trace, lines[-1].prompt) == (proposal.trace, True)
    assert max(len(line.tags) for line in lines) <= LINE_TAGS
    assert max(size_of(line.tags) for line in lines) <= LINE_TAG_BYTES


@given(st.lists(st.integers(0, 4), max_size=8), st.booleans())
def test_slices_of_a_reply_are_its_lines_in_order(sizes: list[int], more: bool) -> None:
    """Only the last of them may end the reply, and a slice is larger than its bound only where it is one line."""
    lines = tuple(
        LogEntry(_TERM, seq, f"n{seq}", ("t",) * size, soft=False, at=0.0) for seq, size in enumerate(sizes, 1)
    )
    slices = [part for part in in_slices(Missed(_TERM, lines, more=more), 5) if isinstance(part, Missed)]
    assert sum((part.lines for part in slices), ()) == lines
    assert [part.more for part in slices] == [True] * (len(slices) - 1) + [more]
    for part in slices:
        assert len(part.lines) <= 1 or sum(len(line.tags) + 1 for line in part.lines) <= 5


def test_other_replies_are_one_slice() -> None:
    """There is nothing in them to be applied bit by bit."""
    for reply in (Current(_TERM), Reset(_TERM, 3, "n")):
        assert list(in_slices(reply)) == [reply]
