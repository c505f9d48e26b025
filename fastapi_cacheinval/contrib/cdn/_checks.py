"""What adapters are made with, checked when they are made."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.cdn.requests import CDN

__all__ = [
    "checked_cdns",
    "checked_headers",
    "checked_id",
    "checked_seconds",
    "checked_tag",
    "checked_token",
    "checked_url",
]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_ID = re.compile(r"[0-9A-Za-z_-]+\Z")


def checked_url(url: str, what: str, *, login: bool = False) -> str:
    """An http or https URL with a host, with user and password only for a `login`; no error repeats it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except (ValueError, AttributeError):
        good = False
    if not good or not _TOKEN.match(url):
        raise ConfigurationError(f"{what} is named by an http or https URL.")
    if "@" in urlsplit(url).netloc and not login:
        raise ConfigurationError(f"{what} is named by a URL without user and password: send them in headers.")
    return url


def place(url: str) -> str:
    """Host and port of a URL, which may be shown; the rest of it may be secret."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"


def checked_token(token: str, what: str) -> str:
    """Something that a header can carry; it is not repeated in the error."""
    if not isinstance(token, str) or not _TOKEN.match(token):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{what} is printable ASCII without white space; this one is empty or is not.")
    return token


def checked_id(text: str, what: str) -> str:
    """Something that stands in a URL as it is."""
    if not isinstance(text, str) or not _ID.match(text):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{what} has letters, digits, - and _ only, not {text!r}.")
    return text


def checked_tag(tag: str | None) -> str | None:
    """A tag in the cache's own form, or none."""
    if tag is not None and not _TOKEN.match(tag):
        raise ConfigurationError(f"all_tag is printable ASCII without white space, not {tag!r}.")
    return tag


def checked_headers(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Header fields that can be sent; values are not repeated in the error."""
    fields = tuple((headers or {}).items())
    for name, value in fields:
        if not _NAME.match(name) or not _VALUE.match(value):
            raise ConfigurationError(f"The header {name!r} cannot be sent: its name or its value is malformed.")
    return fields


def checked_seconds(value: float | timedelta) -> float:
    """The seconds of `again_after`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"again_after is a number of seconds, or 0 for never, not {value!r}.")
    return seconds


def checked_cdns(
    cdn: CDN | Iterable[CDN], most_keys: int, timeout: float, verify: ssl.SSLContext | None
) -> tuple[CDN, ...]:
    """The CDNs that a purger is given, one or several, with what else it is given."""
    cdns = (cdn,) if isinstance(cdn, CDN) else tuple(cdn)
    if not cdns or not all(isinstance(each, CDN) for each in cdns):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"CDNPurger takes a CDN, or several, not {cdn!r}.")
    if most_keys < 1 or not 0 < timeout < float("inf"):
        raise ConfigurationError("most_keys is at least 1, and timeout a number of seconds over 0.")
    if verify is not None and not isinstance(verify, ssl.SSLContext):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError("verify is an ssl.SSLContext: a certificate is always verified.")
    return cdns
