"""Header fields as ASGI carries them: pairs of bytes, lower-case names, order and duplicates kept.

RFC 9110 §5.2, §5.6 and §7.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

__all__ = [
    "HOP_BY_HOP",
    "OWS",
    "RawField",
    "RawHeaders",
    "announces_content",
    "combined",
    "end_to_end",
    "first",
    "head_tells_of_content",
    "is_coded",
    "is_token",
    "lower_names",
    "of_the_connection",
    "own_lines",
    "split_list",
    "split_parameters",
    "unquote",
    "values",
    "without",
]

RawField: TypeAlias = tuple[bytes, bytes]

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

OWS: Final = b" \t"

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that belong to one connection (RFC 9110 §7.6.1) or to one proxy (RFC 9111 §3.1).

`Trailer` is among them because a stored response is replayed without its trailers.
"""

_TOKEN_CHARACTERS: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COMMA_OR_QUOTE: Final = re.compile(rb'[",]')
_SEMICOLON_OR_QUOTE: Final = re.compile(rb'[";]')
_BACKSLASH_OR_QUOTE: Final = re.compile(rb'["\\]')
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)


def lower_names(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The lines with their names in lower case, as all functions here expect them: servers take any case.

    They are the caller's own, and stay as they are.
    """
    return [
        ((name if type(name) is bytes else _fixed(name)).lower(), value if type(value) is bytes else _fixed(value))
        for name, value in headers
    ]


def own_lines(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The lines as they are now, whatever becomes of the list, its pairs or their bytes."""
    return [
        (name if type(name) is bytes else _fixed(name), value if type(value) is bytes else _fixed(value))
        for name, value in headers
    ]


def _fixed(text: Any) -> bytes:
    """Bytes that nobody can change, of what servers take in their place."""
    if isinstance(text, memoryview):
        return text.tobytes()
    return bytes(text) if isinstance(text, bytes | bytearray) else text


def values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The values of every line of one field, in order; `name` is lower-case."""
    return [value for key, value in headers if key == name]


def first(headers: RawHeaders, name: bytes) -> bytes | None:
    """The value of the first line of one field, or None; `name` is lower-case."""
    for key, value in headers:
        if key == name:
            return value
    return None


def combined(headers: RawHeaders, name: bytes) -> bytes | None:
    """All lines of one field joined by `, ` (RFC 9110 §5.2), or None when there is none."""
    lines = values(headers, name)
    return b", ".join(lines) if lines else None


def is_coded(headers: RawHeaders) -> bool:
    """Whether a response says that its content is coded, as by gzip (RFC 9110 §8.4); `identity` is no coding."""
    lines = values(headers, b"content-encoding")
    return any(coding.strip(OWS).lower() not in (b"", b"identity") for line in lines for coding in line.split(b","))


def without(headers: RawHeaders, names: Collection[bytes]) -> list[tuple[bytes, bytes]]:
    """The lines whose lower-case name is not in `names`, in order, bytes untouched."""
    return [line for line in headers if line[0] not in names]


def end_to_end(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The lines that are neither hop-by-hop nor named by `Connection` (RFC 9110 §7.6.1)."""
    return without(headers, _of_one_connection(headers))


def of_the_connection(headers: RawHeaders, beside: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The other lines, but for those that frame the content, and those of the names that are in the fields `beside`."""
    names = _of_one_connection(headers)
    if not any(name in names for name, _ in headers):
        return []
    others = _FRAMING.union([name for name, _ in beside])
    return [line for line in headers if line[0] in names and line[0] not in others]


def _of_one_connection(headers: RawHeaders) -> frozenset[bytes]:
    connection = values(headers, b"connection")
    if not connection:
        return HOP_BY_HOP
    return HOP_BY_HOP.union([member.lower() for value in connection for member in split_list(value)])


def is_token(value: bytes) -> bool:
    """Whether the value is a token (RFC 9110 §5.6.2)."""
    return bool(value) and not value.translate(None, _TOKEN_CHARACTERS)


def split_list(value: bytes) -> list[bytes]:
    """The members of a comma-separated list (RFC 9110 §5.6.1), trimmed, empty ones dropped.

    A comma inside a quoted string does not separate. A quote that never closes quotes nothing:
    from the member that it is in, every comma separates, so that it cannot hide a later member.
    """
    return _trimmed(_pieces(value, b",", _COMMA_OR_QUOTE))


def split_parameters(value: bytes) -> list[bytes]:
    """The pieces of a member around its semicolons (RFC 9110 §5.6.6); quotes as in `split_list`."""
    return _trimmed(_pieces(value, b";", _SEMICOLON_OR_QUOTE))


def unquote(value: bytes) -> bytes | None:
    """What a quoted string says (RFC 9110 §5.6.4), or None when it is not exactly one."""
    if value[:1] != b'"' or _closing_quote(value, 1) != len(value) - 1:
        return None
    inner = value[1:-1]
    return _QUOTED_PAIR.sub(rb"\1", inner) if b"\\" in inner else inner


def _trimmed(pieces: Iterator[bytes]) -> list[bytes]:
    return [trimmed for piece in pieces if (trimmed := piece.strip(OWS))]


def _pieces(value: bytes, separator: bytes, special: re.Pattern[bytes]) -> Iterator[bytes]:
    if b'"' not in value:
        yield from value.split(separator)
        return
    start = position = 0
    while found := special.search(value, position):
        at = found.start()
        if found[0] == separator:
            yield value[start:at]
            start = position = at + 1
            continue
        closing = _closing_quote(value, at + 1)
        if closing < 0:
            yield from value[start:].split(separator)
            return
        position = closing + 1
    yield value[start:]


def _closing_quote(value: bytes, position: int) -> int:
    while found := _BACKSLASH_OR_QUOTE.search(value, position):
        if found[0] == b'"':
            return found.start()
        position = found.start() + 2
    return -1


def announces_content(headers: RawHeaders) -> bool:
    """Whether a field of a request announces content (RFC 9112 §6.3)."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            return True
    return False


def head_tells_of_content(http_version: object) -> bool:
    """Whether the fields of a request tell if there is content: after HTTP/1 none is needed (RFC 9113 §8.1)."""
    return str(http_version).startswith("1")
