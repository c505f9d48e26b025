"""The fields of a stored response as a server writes them on a connection (RFC 9112 section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from fastapi_cacheinval.core.conditional import not_modified_fields
from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["UNJOINABLE", "join", "joined_of"]

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
