"""Cache-Control, of requests and of responses (RFC 9111 §5.2, RFC 5861, RFC 8246)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from fastapi_cacheinval.grammar.fields import OWS, is_token, split_list, unquote

__all__ = ["MAX_SECONDS", "CacheControl", "parse", "serialise"]

MAX_SECONDS: Final = 2**31
"""The largest delta-seconds; what is larger counts as this (RFC 9111 §1.2.2)."""

# Between the parts of a name stands whatever its author takes for a hyphen, or nothing.
_FORBIDDING: Final = re.compile(
    r"(?<![a-z0-9_-])(?:no~store|no~cache|private|max~age|s~max~age|(?:must|proxy)~revalidate)(?![a-z0-9_-])".replace(
        "~", "[^a-z0-9,]{0,3}"
    )
)
# What follows an argument of the grammar's belongs to no directive.
_ARGUMENT: Final = re.compile(rb"""[ \t]*(?:"(?:[^"\\]|\\.)*"|[!#$%&'*+\-.^_`|~0-9A-Za-z]*)""", re.DOTALL)
_SEPARATORS: Final = re.compile(r"[^a-z]+")

FieldNames: TypeAlias = bool | frozenset[bytes]
_Value: TypeAlias = bool | int | frozenset[bytes]


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives of one message (RFC 9111 §5.2); times are whole seconds from 0 to 2**31.

    `no_cache` and `private` are True when they stand alone, or the lower-case names of the fields
    that they are limited to. `max_stale` is True when it has no limit.
    """

    no_store: bool = False
    no_cache: FieldNames = False
    private: FieldNames = False
    public: bool = False
    max_age: int | None = None
    s_maxage: int | None = None
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    no_transform: bool = False
    only_if_cached: bool = False
    min_fresh: int | None = None
    max_stale: int | Literal[True] | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None


def parse(values: Iterable[bytes]) -> CacheControl:
    """The directives of all lines of the field; never raises.

    Names are compared without case, arguments may be quoted, unknown directives are ignored. Of
    duplicates and conflicts the stricter one holds (RFC 9111 §4.2.1): the smaller lifetime, the
    larger `min-fresh`, a bare `private` or `no-cache` over one with field names, a bare `private`
    over `public`. A lifetime that is not a number is 0, which is stale. So it is in what is no directive:
    a word that forbids counts as said there, misspelt or not (`no_store`, `max-age=60; private`).
    """
    found: dict[str, Any] = {}
    unknown: list[bytes] = []
    for line in values:
        for member in split_list(line):
            name, equals, raw = member.partition(b"=")
            directive = _BY_NAME.get(name.rstrip(OWS).lower())
            if equals:
                unknown.append(_ARGUMENT.sub(b"", raw, count=1))
            if directive is None:
                name = name.strip(OWS)
                # What another directive has for its argument is its own affair.
                unknown.append(name if is_token(name) else member)
                continue
            # White space before the equals sign is no argument of the grammar's: malformed.
            argument = None if not equals else raw if name[-1:] not in OWS else b""
            value = directive.read(argument)
            if value is not None:
                _take(found, directive, value)
    if any(unknown):
        _take_misspelt(found, b",".join(unknown))
    if found.get("private") is True:
        found.pop("public", None)
    return CacheControl(**found)


def _take(found: dict[str, Any], directive: _Directive, value: _Value) -> None:
    field = directive.field
    found[field] = directive.stricter(found[field], value) if field in found else value


def _take_misspelt(found: dict[str, Any], text: bytes) -> None:
    for word in _FORBIDDING.findall(_plain(text)):
        directive = _BY_LETTERS[_SEPARATORS.sub("", word)]
        value = directive.read(None)
        if value is not None:
            _take(found, directive, value)


def _plain(text: bytes) -> str:
    """Text in small letters, those of full width among them, whatever its encoding is."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    return unicodedata.normalize("NFKC", decoded).lower()


def serialise(cc: CacheControl) -> bytes:
    """The field's value, always in the same order; empty when there is no directive.

    Times outside the range are clamped; an empty set of field names is written as the bare,
    stricter directive.
    """
    members: list[bytes] = []
    for directive in _DIRECTIVES:
        value: _Value | None = getattr(cc, directive.field)
        if value is None or value is False:
            continue
        if value is True or value == frozenset():
            members.append(directive.name)
        elif isinstance(value, frozenset):
            members.append(b'%b="%b"' % (directive.name, b", ".join(sorted(value))))
        else:
            members.append(b"%b=%d" % (directive.name, min(max(value, 0), MAX_SECONDS)))
    return b", ".join(members)


class _Directive(NamedTuple):
    name: bytes
    field: str
    read: Callable[[bytes | None], _Value | None]
    stricter: Callable[[Any, Any], _Value]


def _seconds(argument: bytes | None) -> int | None:
    if argument is None:
        return None
    digits = unquote(argument) if argument[:1] == b'"' else argument
    if not digits or not digits.isdigit():
        return None
    significant = digits.lstrip(b"0")
    # The length is looked at first: int() of a very long number raises.
    return MAX_SECONDS if len(significant) > 10 else min(int(significant or b"0"), MAX_SECONDS)


def _lifetime(argument: bytes | None) -> int:
    return _seconds(argument) or 0


def _max_stale(argument: bytes | None) -> int:
    return True if argument is None else _lifetime(argument)


def _flag(_argument: bytes | None) -> bool:
    return True


# `private=true` and `private="*"` are no lists of fields.
_ALL: Final = frozenset({b"true", b"1", b"yes", b"on", b"*"})
# A token may hold more, such as the quotes of `private='set-cookie'`, and names no field that anybody sends.
_IN_USE: Final = re.compile(rb"[a-z\d._-]+")


def _field_names(argument: bytes | None) -> FieldNames:
    if argument is None:
        return True
    listed = unquote(argument) if argument[:1] == b'"' else argument
    names = frozenset(name.lower() for name in split_list(listed or b""))
    if not names.isdisjoint(_ALL):
        return True
    return names if names and all(map(_IN_USE.fullmatch, names)) else True


def _more_fields(one: FieldNames, other: FieldNames) -> FieldNames:
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one | other
    return True


def _less_stale(one: int, other: int) -> int:
    if one is True:
        return other
    return one if other is True else min(one, other)


_DIRECTIVES: Final = (
    _Directive(b"no-store", "no_store", _flag, max),
    _Directive(b"no-cache", "no_cache", _field_names, _more_fields),
    _Directive(b"private", "private", _field_names, _more_fields),
    _Directive(b"public", "public", _flag, max),
    _Directive(b"max-age", "max_age", _lifetime, min),
    _Directive(b"s-maxage", "s_maxage", _lifetime, min),
    _Directive(b"must-revalidate", "must_revalidate", _flag, max),
    _Directive(b"proxy-revalidate", "proxy_revalidate", _flag, max),
    _Directive(b"must-understand", "must_understand", _flag, max),
    _Directive(b"immutable", "immutable", _flag, max),
    _Directive(b"no-transform", "no_transform", _flag, max),
    _Directive(b"only-if-cached", "only_if_cached", _flag, max),
    _Directive(b"min-fresh", "min_fresh", _seconds, max),
    _Directive(b"max-stale", "max_stale", _max_stale, _less_stale),
    _Directive(b"stale-while-revalidate", "stale_while_revalidate", _lifetime, min),
    _Directive(b"stale-if-error", "stale_if_error", _lifetime, min),
)
_BY_NAME: Final = {directive.name: directive for directive in _DIRECTIVES}
_BY_LETTERS: Final = {directive.name.decode().replace("-", ""): directive for directive in _DIRECTIVES}
