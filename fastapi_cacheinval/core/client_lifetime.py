"""For how long clients may keep an answer whose policy says so (RFC 9111 section 4.2).

`cache_control="max-age=10"` means ten seconds from when a client gets the answer. A cache subtracts the `Age` of an
answer from its `max-age`, so the number that is sent grows with the age: a hit at the age of 30 says `max-age=40`.
"""

from __future__ import annotations

import re
from typing import Final

from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["client_fields", "counts_from_now", "is_made_of"]

_LIFETIME: Final = re.compile(rb"(?<![\w-])(max-age|s-maxage)=\"?([0-9]{1,10})(?![0-9])\"?", re.IGNORECASE)


def counts_from_now(control: bytes) -> bool:
    """Whether a policy's `Cache-Control` names a lifetime that has to follow the age of each answer."""
    return _LIFETIME.search(control) is not None


def is_made_of(value: bytes, control: bytes) -> bool:
    """Whether a `Cache-Control` that was sent is the policy's, with whatever lifetime."""
    return _LIFETIME.sub(rb"\1", value) == _LIFETIME.sub(rb"\1", control)


def client_fields(stored: StoredResponse, age: float, left: int) -> list[tuple[bytes, bytes]]:
    """The fields of a stored response as they are sent at an age, with `left` whole seconds of freshness.

    `left` is negative for a stale response. Where the policy named a lifetime M, clients are told
    max(M, age + min(M, left)): M seconds from now, but not past the end that the response has here, unless the policy
    itself goes past it. Of a stale response they are told min(M, age): no cache may use it without asking.
    """
    fields = [*stored.headers]
    if not stored.counts_from_now:
        return fields
    whole = max(0, int(age))

    def told(match: re.Match[bytes]) -> bytes:
        most = int(match[2])
        seconds = min(most, whole) if left < 0 else max(most, whole + min(most, left))
        return b"%b=%d" % (match[1], seconds)

    return [(name, _LIFETIME.sub(told, value) if name == b"cache-control" else value) for name, value in fields]
