"""For how long clients may keep an answer whose policy says so (RFC 9111 section 4.2).

`cache_control="max-age=10"` means ten seconds from when a client gets the answer. A cache subtracts the `Age` of an
answer from its `max-age`, so the number that is sent grows with the age: a hit at the age of 30 says `max-age=40`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["client_fields", "counts_from_now", "is_made_of"]

# A member of the list: quoted text hides commas, a quote that never closes quotes nothing (as in `split_list`).
_MEMBER: Final = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|[^,])+')
# A whole member, so that nothing is taken for a lifetime that only has one in its text.
_LIFETIME: Final = re.compile(rb'([ \t]*)(max-age|s-maxage)=(?:([0-9]{1,10})|"([0-9]{1,10})")([ \t]*)', re.IGNORECASE)


def counts_from_now(control: bytes) -> bool:
    """Whether a policy's `Cache-Control` names a lifetime that has to follow the age of each answer."""
    return any(_LIFETIME.fullmatch(member) is not None for member in _MEMBER.findall(control))


def is_made_of(value: bytes, control: bytes) -> bool:
    """Whether a `Cache-Control` that was sent is the policy's, with whatever lifetime."""
    return _rewritten(value, _without_seconds) == _rewritten(control, _without_seconds)


def _rewritten(control: bytes, write: Callable[[int], bytes]) -> bytes:
    """A `Cache-Control` with what `write` gives in place of `=seconds` of each lifetime, all else as it stands."""

    def member(match: re.Match[bytes]) -> bytes:
        found = _LIFETIME.fullmatch(match[0])
        if found is None:
            return match[0]
        before, name, plain, quoted, after = found.groups()
        return b"%b%b%b%b" % (before, name, write(int(plain or quoted)), after)

    return _MEMBER.sub(member, control)


def _without_seconds(_seconds: int) -> bytes:
    return b""


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

    def told(most: int) -> bytes:
        return b"=%d" % (min(most, whole) if left < 0 else max(most, whole + min(most, left)))

    return [(name, _rewritten(value, told) if name == b"cache-control" else value) for name, value in fields]
