"""One spelling for request fields that are known to be lists (RFC 9110 §5.6.1, RFC 9111 §4.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fastapi_cacheinval.grammar.fields import OWS, split_list

__all__ = ["LIST_FIELDS", "normalise_list", "usual_list"]

LIST_FIELDS: Final = frozenset(
    {
        b"accept",
        b"accept-charset",
        b"accept-encoding",
        b"accept-language",
        b"access-control-request-headers",
        b"cache-control",
        b"pragma",
        b"prefer",
    }
)
"""The request fields whose definition is a list, so that white space around a comma says nothing.

All others are text that may hold a comma for any reason, such as the URL in a `Referer`.
"""

# Section 2.1.1 of RFC 5646: tags are compared without case, and have one usual spelling (`zh-Hant-TW`).
_LANGUAGE: Final = re.compile(rb"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_REGION, _SCRIPT = 2, 4


def normalise_list(name: bytes, values: Sequence[bytes]) -> bytes:
    """What all lines of one field say, in a form that equal values share; `-` for no line. Never raises.

    The lines of a known list lose the white space around their commas and their empty members. The order of members
    stays: applications take the first of equals. Of `Accept-Language` the language tags, which RFC 5646 compares
    without case, have their usual spelling. Fields that are not known to be lists keep every byte; several lines
    are joined as RFC 9110 section 5.2 joins them. `name` is in lower case.
    """
    if not values:
        return b"-"
    if name not in LIST_FIELDS or _unbalanced(values):
        return b"+" + b", ".join(values)
    return b"+" + b",".join(_member(name, member) for value in values for member in split_list(value))


def usual_list(name: bytes, values: Sequence[bytes]) -> bool:
    """Whether the lines are spelled as usual: one line, no empty member, language tags in their usual case.

    An application may read any other spelling as something else, though it means the same.
    """
    if len(values) > 1:
        return False
    if name not in LIST_FIELDS or not values or not values[0]:
        return True
    members = [piece.strip(OWS) for piece in values[0].split(b",")]
    return all(members) and (name != b"accept-language" or all(_language(member) == member for member in members))


def _unbalanced(values: Sequence[bytes]) -> bool:
    # A quote that never closes: what is in it and what is not is anybody's guess.
    return any(value.count(b'"') % 2 for value in values)


def _member(name: bytes, member: bytes) -> bytes:
    return _language(member) if name == b"accept-language" else member


def _language(member: bytes) -> bytes:
    """A member of `Accept-Language` with its tag in the usual case; whatever is no tag as it came."""
    tag, semicolon, weight = member.partition(b";")
    if _LANGUAGE.fullmatch(tag.rstrip(OWS)) is None:
        return member
    first, *others = tag.lower().split(b"-")
    singleton = len(first) == 1
    parts = [first]
    for part in others:
        length = len(part.rstrip(OWS))
        if singleton or not part[:1].isalpha():
            parts.append(part)
        elif length == _REGION:
            parts.append(part.upper())
        else:
            parts.append(part.capitalize() if length == _SCRIPT else part)
        singleton = singleton or length == 1
    return b"-".join(parts) + semicolon + weight
