"""Structured fields: lists and dictionaries of items with parameters (RFC 9651)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote_from_bytes, unquote_to_bytes

__all__ = [
    "Bare",
    "Date",
    "Decimal",
    "DisplayString",
    "InnerList",
    "Item",
    "Member",
    "Token",
    "parse_dictionary",
    "parse_list",
    "serialise_dictionary",
    "serialise_list",
]

MAX_INTEGER: Final = 999_999_999_999_999


class Token(str):
    """A bare word, as opposed to a string in quotes."""

    __slots__ = ()


class DisplayString(str):
    """Unicode text for people."""

    __slots__ = ()


class Decimal(NamedTuple):
    """A number with up to three fractional digits, in thousandths."""

    thousandths: int


class Date(NamedTuple):
    """A moment, in whole seconds since the epoch."""

    seconds: int


Bare: TypeAlias = bool | int | str | bytes | Decimal | Date


class Item(NamedTuple):
    """One value and its parameters, in order."""

    value: Bare
    parameters: Mapping[str, Bare]


class InnerList(NamedTuple):
    """Items in parentheses, and the parameters of the whole."""

    items: tuple[Item, ...]
    parameters: Mapping[str, Bare]


Member: TypeAlias = Item | InnerList

_KEY: Final = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
_NUMBER: Final = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]+))?")
_TOKEN: Final = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_STRING: Final = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BYTES: Final = re.compile(rb":([A-Za-z0-9+/=]*):")
_BOOLEAN: Final = re.compile(rb"\?([01])")
_DATE: Final = re.compile(rb"@(-?[0-9]{1,15})(?![0-9.])")
_DISPLAY: Final = re.compile(rb'%"((?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_SP: Final = re.compile(rb" *")
_COMMA: Final = re.compile(rb"[ \t]*,[ \t]*")
_ESCAPED: Final = re.compile(r'(["\\])')


class _Malformed(Exception):
    """What was read is not a structured field."""


def parse_dictionary(values: Iterable[bytes]) -> dict[str, Member] | None:
    """The members of all lines by key, a repeated key's last value in its last place; None where malformed.

    Never raises; a field without any member is an empty dictionary.
    """
    try:
        return _dictionary(_Reader(_joined(values)))
    except _Malformed:
        return None


def parse_list(values: Iterable[bytes]) -> tuple[Member, ...] | None:
    """The members of all lines, in order; None where malformed. Never raises."""
    try:
        return _list(_Reader(_joined(values)))
    except _Malformed:
        return None


def serialise_dictionary(members: Mapping[str, Member]) -> bytes:
    """The field's value; empty for no members."""
    return b", ".join(
        key.encode("ascii") + _parameters_text(member.parameters)
        if isinstance(member, Item) and member.value is True
        else key.encode("ascii") + b"=" + _member_text(member)
        for key, member in members.items()
    )


def serialise_list(members: Iterable[Member]) -> bytes:
    """The field's value; empty for no members."""
    return b", ".join(_member_text(member) for member in members)


def _joined(values: Iterable[bytes]) -> bytes:
    return b", ".join(values).strip(b" ")


class _Reader:
    """A position in the text; each step forward is one match, so that reading is linear."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    @property
    def ended(self) -> bool:
        return self.at == len(self.text)

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return match

    def skip(self, literal: bytes) -> bool:
        found = self.text.startswith(literal, self.at)
        self.at += len(literal) * found
        return found

    def next_member(self) -> bool:
        """Past the comma to another member; False at the end."""
        if self.ended:
            return False
        if self.take(_COMMA) is None or self.ended:
            raise _Malformed
        return True


def _dictionary(reader: _Reader) -> dict[str, Member]:
    members: dict[str, Member] = {}
    more = not reader.ended
    while more:
        key = _key(reader)
        # A repeated key counts where it stands last.
        members.pop(key, None)
        members[key] = _member(reader) if reader.skip(b"=") else Item(value=True, parameters=_parameters(reader))
        more = reader.next_member()
    return members


def _list(reader: _Reader) -> tuple[Member, ...]:
    members: list[Member] = []
    more = not reader.ended
    while more:
        members.append(_member(reader))
        more = reader.next_member()
    return tuple(members)


def _member(reader: _Reader) -> Member:
    if not reader.skip(b"("):
        return _item(reader)
    items: list[Item] = []
    while True:
        reader.take(_SP)
        if reader.skip(b")"):
            return InnerList(tuple(items), _parameters(reader))
        items.append(_item(reader))
        if reader.text[reader.at : reader.at + 1] not in (b" ", b")"):
            raise _Malformed


def _item(reader: _Reader) -> Item:
    return Item(_bare(reader), _parameters(reader))


def _parameters(reader: _Reader) -> dict[str, Bare]:
    parameters: dict[str, Bare] = {}
    while reader.skip(b";"):
        reader.take(_SP)
        key = _key(reader)
        parameters.pop(key, None)
        parameters[key] = _bare(reader) if reader.skip(b"=") else True
    return parameters


def _key(reader: _Reader) -> str:
    match = reader.take(_KEY)
    if match is None:
        raise _Malformed
    return match[0].decode("ascii")


def _bare(reader: _Reader) -> Bare:
    if (match := reader.take(_NUMBER)) is not None:
        return _number(match)
    if (match := reader.take(_STRING)) is not None:
        return re.sub(rb"\\(.)", rb"\1", match[1]).decode("ascii")
    if (match := reader.take(_TOKEN)) is not None:
        return Token(match[0].decode("ascii"))
    if (match := reader.take(_BOOLEAN)) is not None:
        return match[1] == b"1"
    if (match := reader.take(_DATE)) is not None:
        return Date(int(match[1]))
    try:
        if (match := reader.take(_BYTES)) is not None:
            text = match[1].rstrip(b"=")
            return b64decode(text + b"=" * (-len(text) % 4), validate=True)
        if (match := reader.take(_DISPLAY)) is not None:
            return DisplayString(unquote_to_bytes(match[1]).decode("utf-8"))
    except (Base64Error, UnicodeDecodeError):
        pass
    raise _Malformed


def _number(match: re.Match[bytes]) -> int | Decimal:
    sign, whole, fraction = match[1], match[2], match[3]
    if len(whole) > (15 if fraction is None else 12) or (fraction is not None and len(fraction) > 3):
        raise _Malformed
    if fraction is None:
        return int(sign + whole)
    return Decimal(int(sign + whole + fraction.ljust(3, b"0")))


def _member_text(member: Member) -> bytes:
    if isinstance(member, Item):
        return _bare_text(member.value) + _parameters_text(member.parameters)
    inner = b" ".join(_member_text(item) for item in member.items)
    return b"(" + inner + b")" + _parameters_text(member.parameters)


def _parameters_text(parameters: Mapping[str, Bare]) -> bytes:
    return b"".join(
        b";" + key.encode("ascii") + (b"" if value is True else b"=" + _bare_text(value))
        for key, value in parameters.items()
    )


def _bare_text(value: Bare) -> bytes:
    match value:
        case bool():
            return b"?1" if value else b"?0"
        case int():
            return b"%d" % min(max(value, -MAX_INTEGER), MAX_INTEGER)
        case Decimal(thousandths):
            whole, rest = divmod(abs(thousandths), 1000)
            digits = (b"%03d" % rest).rstrip(b"0") or b"0"
            return (b"-" if thousandths < 0 else b"") + b"%d." % whole + digits
        case Date(seconds):
            return b"@%d" % seconds
        case bytes():
            return b":" + b64encode(value) + b":"
        case Token():
            return value.encode("ascii")
        case DisplayString():
            # Lower-case hexadecimal; what is unreserved and what is not are one to readers.
            quoted = quote_from_bytes(value.encode("utf-8"), safe=_DISPLAY_SAFE)
            return b'%"' + re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted).encode("ascii") + b'"'
        case str():
            return b'"' + _ESCAPED.sub(r"\\\1", value).encode("ascii") + b'"'


_DISPLAY_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in '%"')
