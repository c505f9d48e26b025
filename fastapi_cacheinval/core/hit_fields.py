"""The fields of a hit, ready made: its `Age`, and all of them as a server writes them (RFC 9112 section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from fastapi_cacheinval.core.conditional import not_modified_fields
from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["AGES", "UNJOINABLE", "join", "joined_of"]

# Many hits of a moment have few different ages.
_MOST: Final = 4096


class _Ages(dict[int, tuple[bytes, bytes]]):
    """What is not there is made, so that looking it up is no call on the path of a hit."""

    def __missing__(self, seconds: int) -> tuple[bytes, bytes]:
        if len(self) >= _MOST:
            self.clear()
        made = self[seconds] = (b"age", b"%d" % seconds)
        return made


AGES: Final = _Ages()
"""`Age` by a response's age in whole seconds."""

UNJOINABLE: Final = (b"", b"")
"""In place of the joined fields of a response that a server does more about than write it; compare by identity."""

# What a server refuses to write.
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")
# What a server does more about than write it.
_CONNECTION: Final = frozenset({b"connection", b"transfer-encoding", b"upgrade"})


def join(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Field lines, each with its end."""
    return b"".join([b"%b: %b\r\n" % (name.lower(), value) for name, value in fields])


def joined_of(stored: StoredResponse) -> tuple[bytes, bytes]:
    """The joined fields of a response and of its 304; `UNJOINABLE` where its fields and body do not say all."""
    fields = stored.headers
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    if lengths != [b"%d" % len(stored.body)] or stored.status in (204, 304):
        return UNJOINABLE
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _CONNECTION:
            return UNJOINABLE
    return join(fields), join(not_modified_fields(fields))
