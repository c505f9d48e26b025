"""Cache-Status: how a cache handled a request (RFC 9211), a list of structured items (RFC 9651)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fastapi_cacheinval.grammar.fields import split_list, split_parameters, unquote

__all__ = ["CacheStatus", "parse_cache_status", "serialise_cache_status"]

_MAX_INTEGER: Final = 999_999_999_999_999

_TOKEN: Final = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_INTEGER: Final = re.compile(rb"-?[0-9]{1,15}")
_KEY: Final = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
_STRING: Final = re.compile(rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"')
# Decimals, byte sequences, dates and display strings: right, but of no parameter that we know.
_OTHER_ITEM: Final = re.compile(
    rb"-?[0-9]{1,12}\.[0-9]{1,3}|:[0-9A-Za-z+/=]*:|@-?[0-9]{1,15}|%\"[\x20\x21\x23-\x7e]*\""
)
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")

_Item: TypeAlias = bool | int | str


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """What one cache says of one request (RFC 9211 §2); `key` is left out, it would tell too much.

    `ttl` is the remaining freshness in whole seconds, negative when stale; `fwd` is why the request
    went on, `fwd_status` what that answered; `detail` is free text, printable ASCII.
    """

    cache: str = "cacheinval"
    hit: bool = False
    fwd: str | None = None
    fwd_status: int | None = None
    ttl: int | None = None
    stored: bool = False
    collapsed: bool = False
    detail: str | None = None


def serialise_cache_status(cs: CacheStatus) -> bytes:
    """One member of the field: false and absent parameters are left out.

    Text is a token where it can be, else a string; a character outside printable ASCII becomes `?`,
    and integers are kept within 15 digits.
    """
    parts = [_text(cs.cache)]
    if cs.hit:
        parts.append(b"hit")
    if cs.fwd is not None:
        parts.append(b"fwd=" + _text(cs.fwd))
    if cs.fwd_status is not None:
        parts.append(b"fwd-status=" + _integer(cs.fwd_status))
    if cs.ttl is not None:
        parts.append(b"ttl=" + _integer(cs.ttl))
    if cs.stored:
        parts.append(b"stored")
    if cs.collapsed:
        parts.append(b"collapsed")
    if cs.detail is not None:
        parts.append(b"detail=" + _text(cs.detail))
    return b"; ".join(parts)


def parse_cache_status(value: bytes) -> list[CacheStatus]:
    """The members of the field, the cache nearest to the origin first; never raises.

    Parameters that are unknown or of the wrong type are ignored, of two the last holds; a member
    that is not a structured item named by a token or a string is skipped.
    """
    return [status for member in split_list(value) if (status := _parse_member(member)) is not None]


def _parse_member(member: bytes) -> CacheStatus | None:
    if member.startswith(b";"):
        return None
    cache, *parameters = split_parameters(member)
    name = _parse_item(cache)
    if not isinstance(name, str):
        return None
    known: dict[str, Any] = {"cache": name}
    for parameter in parameters:
        key, equals, raw = parameter.partition(b"=")
        item = _parse_item(raw) if equals else True
        if _KEY.fullmatch(key) is None or (item is None and not _OTHER_ITEM.fullmatch(raw)):
            return None
        field, wanted = _PARAMETERS.get(key, ("", bool))
        if field and type(item) is wanted:
            known[field] = item
    return CacheStatus(**known)


def _parse_item(raw: bytes) -> _Item | None:
    if _TOKEN.fullmatch(raw):
        return raw.decode("ascii")
    if _INTEGER.fullmatch(raw):
        return int(raw)
    if raw in (b"?0", b"?1"):
        return raw == b"?1"
    if _STRING.fullmatch(raw) and (text := unquote(raw)) is not None:
        return text.decode("ascii")
    return None


def _text(text: str) -> bytes:
    raw = _UNPRINTABLE.sub("?", text).encode("ascii")
    if _TOKEN.fullmatch(raw):
        return raw
    return b'"%b"' % raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _integer(number: int) -> bytes:
    return b"%d" % min(max(number, -_MAX_INTEGER), _MAX_INTEGER)


_PARAMETERS: Final[dict[bytes, tuple[str, type[_Item]]]] = {
    b"hit": ("hit", bool),
    b"fwd": ("fwd", str),
    b"fwd-status": ("fwd_status", int),
    b"ttl": ("ttl", int),
    b"stored": ("stored", bool),
    b"collapsed": ("collapsed", bool),
    b"detail": ("detail", str),
}
