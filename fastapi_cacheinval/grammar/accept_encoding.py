"""One spelling for all `Accept-Encoding` values that say the same (RFC 9110 §12.5.3)."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from fastapi_cacheinval.grammar.fields import OWS, is_token

__all__ = ["MAX_LENGTH", "MAX_MEMBERS", "normalise_accept_encoding"]

MAX_MEMBERS: Final = 64
MAX_LENGTH: Final = 1_024

_ABSENT: Final = b""
_EMPTY: Final = b","
_OPAQUE: Final = b"~"
_WEIGHT: Final = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def normalise_accept_encoding(value: bytes | None) -> bytes:
    """The normal form of all lines of the field joined, None for no line; never raises.

    Two values have one normal form only if they differ in white space, case, the order of members
    that do not contradict each other, duplicates, or the spelling of a weight. A coding with weight
    0 stays, since it is not the same as an absent one for a handler that looks for the word.
    `x-gzip` stays apart from `gzip`: a client that knows only the old name may not read a response
    that says the new one. No line and an empty one stay apart: "anything" and "nothing".

    What is over 64 members or 1,024 bytes, malformed, or gives one coding two weights is compared
    by its bytes: its form is `~` and 32 hexadecimal digits of its BLAKE2b digest.
    """
    if value is None:
        return _ABSENT
    return _normal_form(value) if len(value) <= MAX_LENGTH else _opaque(value)


# Clients send a handful of values, and the form is needed on every hit that varies by it.
@lru_cache(maxsize=256)
def _normal_form(value: bytes) -> bytes:
    weights = _weights(value)
    if weights is None:
        return _opaque(value)
    if not weights:
        return _EMPTY
    ordered = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
    return b",".join(coding + _spelling(weight) for coding, weight in ordered)


def _opaque(value: bytes) -> bytes:
    return _OPAQUE + blake2b(value, digest_size=16).hexdigest().encode("ascii")


def _weights(value: bytes) -> dict[bytes, int] | None:
    members = [member for piece in value.split(b",") if (member := piece.strip(OWS))]
    if len(members) > MAX_MEMBERS:
        return None
    weights: dict[bytes, int] = {}
    for member in members:
        coding, semicolon, parameter = member.lower().partition(b";")
        coding = coding.rstrip(OWS)
        weight = _thousandths(parameter.strip(OWS)) if semicolon else 1_000
        # A coding that starts like an opaque form could be made to collide with one.
        if weight is None or not is_token(coding) or coding.startswith(_OPAQUE):
            return None
        if weights.setdefault(coding, weight) != weight:
            return None
    return weights


def _thousandths(parameter: bytes) -> int | None:
    name, _, number = parameter.partition(b"=")
    if name != b"q" or _WEIGHT.fullmatch(number) is None:
        return None
    whole, _, fraction = number.partition(b".")
    return int(whole) * 1_000 + int(fraction.ljust(3, b"0"))


def _spelling(weight: int) -> bytes:
    if weight == 1_000:
        return b""
    return b";q=0" if weight == 0 else (b";q=0.%03d" % weight).rstrip(b"0")
