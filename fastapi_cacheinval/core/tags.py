"""Tags: names of groups of stored responses, on the wire `Surrogate-Key` (RFC 9875 calls them cache groups).

A tag's normal form is printable ASCII without white space, at most 1,024 bytes. Literal text that
an author writes is refused when it is not; text that may carry a client's data never raises and is
brought to the normal form in one way, on read and on purge alike.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Literal
from urllib.parse import quote, unquote

from fastapi_cacheinval.errors import ConfigurationError

__all__ = [
    "ALL",
    "MAX_TAG_BYTES",
    "TagTemplate",
    "are_normal",
    "authority",
    "bounded",
    "has_host",
    "is_reserved",
    "normalise_tag",
    "not_a_tag",
    "path_of",
    "path_tag",
    "render_value",
    "reserved_in",
    "shown_tags",
    "url_paths",
    "with_reserved",
]

MAX_TAG_BYTES = 1024

# Reserved tags start with a control character, which no normal form contains.
_RESERVED = "\x01"
ALL = _RESERVED + "all"
_PATH = _RESERVED + "path:"

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F))
_NORMAL = re.compile(rf"[\x21-\x7e]{{1,{MAX_TAG_BYTES}}}\Z")
_ALL_PRINTABLE = re.compile(r"[\x21-\x7e]*\Z")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
# No zero before the port counts, and none at all is the scheme's own.
_PORT = re.compile(r":(?:0+(?=[0-9]))?([0-9]*)\Z")
_HOST = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/]*")
_NAME = re.compile(r"[^\W\d]\w*\Z")
_COLUMN = re.compile(r"[^\[\].!:{}]+\Z")
# Before and after the point. PostgreSQL's `numeric`, the widest type there is, has 131,072 before it.
_MOST_DIGITS = 131_072
# A time of day has no date to be moved across.
_ANY_DAY = date(2000, 1, 1)


def is_reserved(tag: str) -> bool:
    """Whether a tag is one of the cache's own, which are never shown."""
    return tag[:1] == _RESERVED


def reserved_in(tags: tuple[str, ...]) -> tuple[str, ...]:
    """The reserved ones of them; where there are none, as in very large purges, each need not be looked at."""
    return tuple([tag for tag in tags if tag[:1] == _RESERVED]) if _RESERVED in "".join(tags) else ()


def shown_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags without the cache's own."""
    return tuple([tag for tag in tags if tag[:1] != _RESERVED])


def path_tag(path: str) -> str:
    """The reserved tag that every stored response of a path carries, whatever its host and query."""
    return _PATH + bounded(path)


def with_reserved(tags: Iterable[str], path: str, inner: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The tags of a stored response, with those of its path and the one of everything.

    `inner` is its path as mounted apps know it, where that is another.
    """
    return (*tags, path_tag(path), *map(path_tag, inner), ALL) if inner else (*tags, path_tag(path), ALL)


def path_of(tag: str) -> str | None:
    """The path that a reserved tag stands for, as receipts name it; None for any other tag."""
    return tag[len(_PATH) :] if tag.startswith(_PATH) else None


def authority(scheme: str, netloc: str) -> str:
    """A host with its port, as it compares (RFC 3986 section 6.2.3): in lower case, the scheme's own port left out."""
    netloc = netloc.lower()
    match = _PORT.search(netloc)
    if match is None:
        return netloc
    host, port = netloc[: match.start()], match[1]
    return host if port in ("", _DEFAULT_PORTS.get(scheme.lower())) else f"{host}:{port}"


def has_host(url: str) -> bool:
    """Whether a URL names a host, and is more than a path."""
    return _HOST.match(url) is not None


def url_paths(url: str) -> tuple[str, ...]:
    """The paths that a URL, or a path as handlers see it, may stand for. Never raises.

    Without scheme, host, query and fragment; as it is written and, where that differs, decoded.
    """
    path = url.partition("#")[0].partition("?")[0]
    has_host = _HOST.match(path)
    if has_host:
        path = path[has_host.end() :]
    if path[:1] != "/":
        path = "/" + path
    return tuple(dict.fromkeys((path, unquote(path))))


def bounded(text: str) -> str:
    """A text as it is, or what stands for one that is over 1,024 bytes: its SHA-256 digest, never a cut."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= MAX_TAG_BYTES:
        return text
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def not_a_tag(given: object) -> ConfigurationError:
    """The error for what stands in a tag's place and is no text; clients' data is text, so it never gets here."""
    if isinstance(given, list | tuple | set | frozenset | dict):
        kind = type(given).__name__  # pyright: ignore[reportUnknownArgumentType]
        return ConfigurationError(
            f"Tags are given one by one, not as a {kind}: write *tags, or 'a', 'b' in place of ['a', 'b']."
        )
    return ConfigurationError(f"A tag is a str, not {type(given).__name__}: write f'product:{{product_id}}'.")


def normalise_tag(text: str) -> str | None:
    """The normal form of a tag that may carry a client's data; None for an empty one. Never raises.

    White space, control and non-ASCII characters are percent-encoded as UTF-8; what is then longer
    than 1,024 bytes becomes a SHA-256 digest, never a cut.
    """
    if _NORMAL.match(text):
        return text
    if not text:
        return None
    return bounded(quote(text, safe=_PRINTABLE, errors="surrogatepass"))


def are_normal(texts: Sequence[str]) -> bool:
    """Whether each of some texts is in normal form; several times as fast as to look at one after the other."""
    return not texts or (
        all(texts) and max(map(len, texts)) <= MAX_TAG_BYTES and _ALL_PRINTABLE.match("".join(texts)) is not None
    )


def render_value(value: object) -> str | None:
    """A value as it stands in a tag; None where the tag is left out. Everything that makes a tag of a value uses it.

    None is nothing, and an `Enum` its value. `True` is `True`. A number has no exponent and no zeros at its end:
    `Decimal("30.50")` and `30.5` are `30.5`, `42.0` is `42`, `-0.0` is `0`; then there are `NaN`, `Infinity` and
    `-Infinity`. A `datetime` or a `time` with a time zone is brought to UTC: `2026-01-02 03:04:05+00:00`. A `timedelta`
    is its seconds as a number, and bytes are lower-case hexadecimal digits. All else is what `str` makes of it. Raises
    what `str` raises: `ValueError` for an `int` of more than 4,300 digits.
    """
    match value:
        case None:
            return None
        case Enum():
            return render_value(value.value)
        case float():
            # The shortest digits that stand for it, as databases and JSON write them.
            return _number(Decimal(float.__repr__(value)))
        case Decimal():
            return _number(value)
        case timedelta():
            return _number(Decimal(f"{value // timedelta(microseconds=1)}E-6"))
        case datetime() | time():
            return str(_in_utc(value))
        case bytes() | bytearray() | memoryview():
            return value.hex()
        case _:
            return str(value)


def _number(value: Decimal) -> str:
    if value.is_nan():
        return "NaN"
    if value.is_infinite():
        return "Infinity" if value > 0 else "-Infinity"
    if not value:
        return "0"
    if abs(value.adjusted()) > _MOST_DIGITS:
        # No database holds such a number, and a client must not be able to ask for a gigabyte of zeros.
        sign, digits, exponent = value.as_tuple()
        text = "".join(map(str, digits))
        kept = text.rstrip("0")
        return f"{'-' if sign else ''}{kept}E{int(exponent) + len(text) - len(kept)}"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _in_utc(value: datetime | time) -> datetime | time:
    try:
        if isinstance(value, time):
            moment = datetime.combine(_ANY_DAY, value)
            return value if value.utcoffset() is None else moment.astimezone(UTC).timetz()
        return value if value.utcoffset() is None else value.astimezone(UTC)
    except OverflowError:
        # Within a day of the first or the last moment that there is.
        return value


@dataclass(frozen=True, slots=True)
class TagTemplate:
    """A tag with names in braces, such as `product:{product_id}`.

    Made from the author's text by `parse`. The names are those of path or query parameters, of columns, or of whatever
    else `render` is given the values of.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]
    names: tuple[str, ...] = field(init=False)
    """The names that it takes, in order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(name for _, name in self.parts if name is not None))

    @classmethod
    def parse(cls, text: str, names: Collection[str] | Literal["columns"] | None = None) -> TagTemplate:
        """Check an author's template and take it apart.

        `names` are those that may stand in braces: by default any name of Python, with `"columns"` any name that a
        column can have but for `[`, `]`, `.`, `!`, `:` and braces, and with a collection just those of it. An empty
        collection is for tags that have nothing to take values from. Raises `ConfigurationError` for text that is
        empty, has white space, control or non-ASCII characters, is over 1,024 bytes, or has malformed braces or other
        names in them.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise not_a_tag(text)
        if not text or len(text) > MAX_TAG_BYTES:
            raise ConfigurationError(f"A tag must not be empty or over {MAX_TAG_BYTES} bytes: {text[:80]!r}.")
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(
                f"The tag template {text!r} has malformed braces ({error}); write {{{{ for a brace."
            ) from None
        for literal, name, spec, conversion in pieces:
            if literal and not _NORMAL.match(literal):
                raise ConfigurationError(
                    f"The tag {text!r} must be printable ASCII without white space, at most {MAX_TAG_BYTES} bytes."
                )
            if name is not None:
                _check_name(text, name, names, plain=not spec and not conversion)
        return cls(text, tuple((literal, name) for literal, name, _, _ in pieces))

    def render(self, values: Mapping[str, object]) -> str | None:
        """The tag for these values by `render_value`; None where one of them is None, or where nothing is left."""
        out: list[str] = []
        for literal, name in self.parts:
            out.append(literal)
            if name is not None:
                rendered = render_value(values[name])
                if rendered is None:
                    return None
                out.append(rendered)
        return normalise_tag("".join(out))


def _check_name(text: str, name: str, names: Collection[str] | None, *, plain: bool) -> None:
    """Refuse a name in braces that is malformed, or is not one of those that there are."""
    if names is None or names == "columns":
        kind, known = ("plain parameter names", _NAME) if names is None else ("names of columns", _COLUMN)
        if not plain or not known.match(name):
            raise ConfigurationError(f"The tag template {text!r} may hold only {kind} in braces, nothing else.")
    elif not names:
        raise ConfigurationError(f"The tag template {text!r} has no row and no request to take {name!r} from.")
    elif not plain or name not in names:
        raise ConfigurationError(
            f"The tag template {text!r} may hold only names of {', '.join(sorted(names))} in braces, not {name!r}."
        )
