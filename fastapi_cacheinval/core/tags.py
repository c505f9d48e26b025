"""Tags: names of groups of stored responses, on the wire `Surrogate-Key` (RFC 9875 calls them cache groups).

A tag's normal form is printable ASCII without white space, at most 1,024 bytes. Literal text that
an author writes is refused when it is not; text that may carry a client's data never raises and is
brought to the normal form in one way, on read and on purge alike.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote, unquote

from fastapi_cacheinval.errors import ConfigurationError

__all__ = [
    "ALL",
    "MAX_TAG_BYTES",
    "TagTemplate",
    "has_host",
    "is_reserved",
    "normalise_tag",
    "normalise_tags",
    "path_of",
    "path_tag",
    "render_value",
    "url_paths",
]

MAX_TAG_BYTES = 1024

# Reserved tags start with a control character, which no normal form contains.
_RESERVED = "\x01"
ALL = _RESERVED + "all"
_PATH = _RESERVED + "path:"

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F))
_NORMAL = re.compile(rf"[\x21-\x7e]{{1,{MAX_TAG_BYTES}}}\Z")
_HOST = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/]*")
_NAME = re.compile(r"[^\W\d]\w*\Z")


def is_reserved(tag: str) -> bool:
    """Whether a tag is one of the cache's own, which are never shown."""
    return tag[:1] == _RESERVED


def path_tag(path: str) -> str:
    """The reserved tag that every stored response of a path carries, whatever its host and query."""
    return _PATH + _bounded(path)


def path_of(tag: str) -> str | None:
    """The path that a reserved tag stands for, as receipts name it; None for any other tag."""
    return tag[len(_PATH) :] if tag.startswith(_PATH) else None


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


def _bounded(text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= MAX_TAG_BYTES:
        return text
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def normalise_tag(text: str) -> str | None:
    """The normal form of a tag that may carry a client's data; None for an empty one. Never raises.

    White space, control and non-ASCII characters are percent-encoded as UTF-8; what is then longer
    than 1,024 bytes becomes a SHA-256 digest, never a cut.
    """
    if _NORMAL.match(text):
        return text
    if not text:
        return None
    return _bounded(quote(text, safe=_PRINTABLE, errors="surrogatepass"))


def normalise_tags(texts: Iterable[str]) -> tuple[str, ...]:
    """The normal forms in their first order, without duplicates and without empty ones."""
    return tuple({tag: None for text in texts if (tag := normalise_tag(text)) is not None})


def render_value(value: object) -> str | None:
    """A validated parameter as it stands in a tag; an `Enum` renders as its value, None as nothing."""
    if isinstance(value, Enum):
        value = value.value
    return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class TagTemplate:
    """A tag with the names of path or query parameters in braces, such as `product:{product_id}`.

    Made from the author's text by `parse`, which raises `ConfigurationError` for text that is
    empty, has white space or control characters, is over 1,024 bytes or has malformed braces.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters it takes, in order."""
        return tuple(name for _, name in self.parts if name is not None)

    @classmethod
    def parse(cls, text: str) -> TagTemplate:
        """Check an author's template and take it apart."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"A tag is a str, not {type(text).__name__}: {text!r}.")
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(
                f"The tag template {text!r} has malformed braces ({error}); write {{{{ for a brace."
            ) from None
        parts: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in pieces:
            if name is not None and (spec or conversion or not _NAME.match(name)):
                raise ConfigurationError(f"The tag template {text!r} may hold only plain parameter names in braces.")
            if literal and not _NORMAL.match(literal):
                raise ConfigurationError(
                    f"The tag {text!r} must be printable ASCII without white space, at most {MAX_TAG_BYTES} bytes."
                )
            parts.append((literal, name))
        if not parts or len(text) > MAX_TAG_BYTES:
            raise ConfigurationError(f"A tag must not be empty or over {MAX_TAG_BYTES} bytes: {text[:80]!r}.")
        return cls(text, tuple(parts))

    def render(self, values: Mapping[str, object]) -> str | None:
        """The tag for validated values; None where nothing is left of it or a value renders as nothing."""
        out: list[str] = []
        for literal, name in self.parts:
            out.append(literal)
            if name is not None:
                rendered = render_value(values[name])
                if rendered is None:
                    return None
                out.append(rendered)
        return normalise_tag("".join(out))
