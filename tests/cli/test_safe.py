"""What a terminal would obey is written out."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.cli.safe import as_json, cut, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("product:42", "product:42"),
        ("Käse 日本 😀", "Käse 日本 😀"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\rc\td\x00", "a\\x0ab\\x0dc\\x09d\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
        ("zero\u200bwidth\u2028", "zero\\u200bwidth\\u2028"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text: str, shown: str) -> None:
    """Escapes, other controls, turns of direction, and what cannot be encoded; all else stays."""
    assert plain(text) == shown


@given(st.text(st.characters(), max_size=50))
def test_nothing_plain_is_a_control(text: str) -> None:
    """No character of any text is left that is a control, a surrogate, or turns the direction."""
    shown = plain(text)
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cs")]
    assert not [
        each
        for each in shown
        if unicodedata.bidirectional(each) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    ]
    shown.encode()


@given(st.text(max_size=50), st.integers(1, 20))
def test_a_text_that_is_cut_is_plain_and_no_longer(text: str, most: int) -> None:
    """And what fits stays whole."""
    shown = cut(text, most)
    assert len(shown) <= most
    if len(plain(text)) <= most:
        assert shown == plain(text)


def test_json_is_ascii_on_one_line() -> None:
    """A tag with a newline or an escape in it does not break lines of JSON, and is read as it was."""
    line = as_json({"tag": "\x1b\n\u202e😀"})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"tag": "\x1b\n\u202e😀"}
