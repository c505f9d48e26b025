"""Directives for caches like this alone: CDN-Cache-Control (RFC 9213), Surrogate-Control (W3C Edge Architecture)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fastapi_cacheinval.grammar.cache_control import CacheControl, parse, serialise
from fastapi_cacheinval.grammar.fields import OWS, split_list, split_parameters
from fastapi_cacheinval.grammar.structured import Item, Token, parse_dictionary

__all__ = ["CAPABILITY", "parse_cdn_cache_control", "parse_surrogate_control", "serialise_targeted"]

CAPABILITY: Final = b"cacheinval"
"""The name by which `Surrogate-Control` can mean this cache alone."""

_DURATIONS: Final = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_FLAGS: Final = frozenset(
    {"no-store", "must-revalidate", "proxy-revalidate", "must-understand", "public", "no-transform", "immutable"}
)
_FORBIDDING: Final = frozenset({"no-store", "no-cache", "private", "must-revalidate", "proxy-revalidate"})
_EXTENDED_AGE: Final = re.compile(rb"(max-age=[0-9]{1,10})\+([0-9]{1,10})", re.IGNORECASE)


def parse_cdn_cache_control(values: Sequence[bytes]) -> CacheControl | None:
    """The directives of all lines; None where the field is absent, empty or no structured dictionary.

    A known directive of the wrong type makes the whole field void: half of what was meant could be
    the half that allows. Never raises.
    """
    members = parse_dictionary(values) if values else None
    if not members:
        return None
    known: list[bytes] = []
    for name, member in members.items():
        if not isinstance(member, Item):
            return None
        value = member.value
        # Behind a semicolon they are parameters, which the grammar would have ignored.
        known += [
            each.encode() for each, said in member.parameters.items() if each in _FORBIDDING and said is not False
        ]
        if name in _DURATIONS:
            if isinstance(value, bool) or not isinstance(value, int):
                return None
            known.append(b"%b=%d" % (name.encode(), value) if value >= 0 else name.encode() + b"=0")
        elif name in _FLAGS:
            if not isinstance(value, bool):
                return None
            known += [name.encode()] * value
        elif name in ("no-cache", "private"):
            if isinstance(value, str) and not isinstance(value, Token):
                known.append(b'%b="%b"' % (name.encode(), value.replace('"', "").replace("\\", "").encode()))
            elif value is not False:
                known.append(name.encode())
        elif value is not False:
            # Another directive, or a misspelt one.
            known.append(name.encode())
    return parse(known)


def parse_surrogate_control(values: Sequence[bytes]) -> CacheControl | None:
    """The directives of all lines that are for this cache; None where there are none. Never raises.

    A directive with a parameter counts only where the parameter is `CAPABILITY`. The second number of
    `max-age=60+600` is for how long a stale response may be served while it is refreshed.
    """
    known: list[bytes] = []
    extended: int | None = None
    for value in values:
        for member in split_list(value):
            directive, *targets = split_parameters(member) or [b""]
            if targets and CAPABILITY not in {target.strip(OWS).lower() for target in targets}:
                continue
            match = _EXTENDED_AGE.fullmatch(directive)
            if match is not None:
                directive, extended = match[1], int(match[2])
            known.append(directive)
    if not known:
        return None
    directives = parse(known)
    return directives if extended is None else replace(directives, stale_while_revalidate=extended)


def serialise_targeted(directives: CacheControl) -> bytes:
    """The value of `CDN-Cache-Control` for directives; a structured dictionary, as `serialise` writes it."""
    return serialise(directives)
