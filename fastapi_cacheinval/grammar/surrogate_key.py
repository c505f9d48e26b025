"""Surrogate-Key: the tags of a response, separated by white space, as CDNs read them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["MAX_LENGTH", "parse_surrogate_key", "readings", "serialise_surrogate_key"]

MAX_LENGTH: Final = 8_192
"""Bytes of the field that are emitted."""

_CARRIABLE: Final = re.compile(r"[\x21-\x7e\x80-\xff]+")


def parse_surrogate_key(values: Iterable[bytes]) -> list[str]:
    """The tags of all lines in their `readings`, in order, duplicates kept; never raises."""
    return [text for value in values for tag in value.split() for text in readings(tag)]


def readings(raw: bytes) -> tuple[str, ...]:
    """The texts that bytes of a field may stand for: Latin-1, as Starlette writes it, and UTF-8, as others do."""
    text = raw.decode("latin-1")
    if not text.isascii():
        try:
            return text, raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return (text,)


def serialise_surrogate_key(tags: Iterable[str], limit: int = MAX_LENGTH) -> bytes | None:
    """The field's value of at most `limit` bytes, or None when no tag is in it.

    Tags are whole: the first that does not fit ends it. A tag that the field cannot carry (empty,
    or with white space, a control character or one outside Latin-1) is left out.
    """
    carried: list[bytes] = []
    left = limit + 1
    for tag in tags:
        if _CARRIABLE.fullmatch(tag) is None:
            continue
        left -= len(tag) + 1
        if left < 0:
            break
        carried.append(tag.encode("latin-1"))
    return b" ".join(carried) or None
