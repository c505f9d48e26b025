"""Surrogate-Key: the tags of a response, separated by white space, as CDNs read them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["MAX_LENGTH", "parse_surrogate_key", "serialise_surrogate_key"]

MAX_LENGTH: Final = 8_192
"""Bytes of the field that are emitted."""

_CARRIABLE: Final = re.compile(r"[\x21-\x7e\x80-\xff]+")


def parse_surrogate_key(values: Iterable[bytes]) -> list[str]:
    """The tags of all lines, in order, duplicates kept, decoded as Latin-1; never raises."""
    return [tag.decode("latin-1") for value in values for tag in value.split()]


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
