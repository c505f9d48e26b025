"""Patterns in which a star stands for any text, told as the parts around the stars."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["fits"]


def fits(parts: Sequence[str], text: str) -> bool:
    """Whether a text is these parts, in order, with any text between two of them; a regular expression may backtrack.

    The time is linear in the text, whatever the pattern and the text.
    """
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return text == first
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for part in parts[1:-1]:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
