"""One spelling for list fields that differ in white space, or in case where that says nothing (RFC 9111 §4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi_cacheinval.grammar.fields import split_list

__all__ = ["normalise_list"]

_WITHOUT_CASE = frozenset({b"accept", b"accept-charset", b"accept-language"})


def normalise_list(name: bytes, values: Sequence[bytes]) -> bytes:
    """The members of all lines, joined by bare commas; `-` for no line. Never raises.

    Lines are joined and white space around commas goes; in `Accept-Language` and its like, case too.
    The order of members stays: applications take the first of equals.
    """
    if not values:
        return b"-"
    joined = b",".join(member for value in values for member in split_list(value))
    return b"=" + (joined.lower() if name in _WITHOUT_CASE else joined)
