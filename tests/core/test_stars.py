"""Patterns with stars, against regular expressions that say the same."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.stars import fits


@given(pattern=st.text("ab*/", max_size=8), text=st.text("ab/\n", max_size=12))
def test_it_says_what_a_regular_expression_says(pattern: str, text: str) -> None:
    """For short texts, which no expression takes long for."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
    assert fits(pattern.split("*"), text) is expected


@pytest.mark.parametrize("pattern", ["/*/*/*/x", "/*/a/*/b/*/c", "*a*a*a*a*a*a*a*a*a*b", "*.css*.map"])
def test_no_text_takes_long(pattern: str) -> None:
    """Ten times as long a text takes not a hundred times as long: expressions took seconds for one path."""

    def spent(size: int) -> float:
        texts = [unit * (size // len(unit)) for unit in ("/", "a", "/a/b", ".css")]
        began = time.process_time()
        for _ in range(20):
            for text in texts:
                assert not fits(pattern.split("*"), text + "?")
        return time.process_time() - began

    spent(6_000)
    assert spent(60_000) < 50 * spent(6_000) + 0.05
