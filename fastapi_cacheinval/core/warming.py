"""What is asked of the app without a client, and what came of it: values of `HTTPCache.warm` and `refresh_url`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from fastapi_cacheinval.core.root_paths import RootPaths
from fastapi_cacheinval.core.tags import authority
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.grammar.fields import is_token

__all__ = ["Page", "WarmReport", "WarmResult", "any_fields", "page_at", "request_fields"]

_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
_SCHEMES = ("http", "https")
# What a URL may hold as it is (RFC 3986 section 3.3); a percent sign begins what is encoded already.
_AS_IS = "/%:@!$&'()*+,;=~"
# What the cache sets itself, or what would make another request of it.
_NOT_GIVEN = _CREDENTIALS | {"host", "range", "content-length", "transfer-encoding", "cache-control"}


class Page(NamedTuple):
    """One GET: `path` and `root_path` as ASGI has them, decoded; `raw_path` and `query` as they would be sent."""

    scheme: str
    host: str
    root_path: str
    path: str
    raw_path: str
    query: str

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.host}{self.raw_path}" + (f"?{self.query}" if self.query else "")


@dataclass(frozen=True, slots=True)
class WarmResult:
    """What came of one URL.

    `outcome` is `stored`; `found`, if it was fresh already, here or on another replica; `stale`, if a stale response
    was found that may be served while it is refreshed; `refused`, if the answer may not be stored (`detail` says why,
    as in `Cache-Status`); `uncached`, if its route has no policy, or the cache is off; `superseded`, if a purge came
    meanwhile; `failed`, `timeout` or `cancelled`. `status` is the app's, None where it answered nothing.
    """

    url: str
    outcome: str
    status: int | None = None
    detail: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the next request for it is a hit."""
        return self.outcome in ("stored", "found")


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What came of each URL, in the order in which they were given, each once."""

    results: tuple[WarmResult, ...]

    @property
    def ready(self) -> int:
        """How many are fresh now."""
        return sum(result.ready for result in self.results)

    @property
    def missing(self) -> tuple[WarmResult, ...]:
        """The results of those that are not."""
        return tuple(result for result in self.results if not result.ready)


def _origin(url: str, what: str) -> SplitResult:
    """A whole URL taken apart, its host as clients send it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{what} is no URL: {url!r}.") from None
    if parts.scheme not in _SCHEMES or not parts.netloc.isascii() or not parts.hostname:
        raise ConfigurationError(f"{what} begins with http:// or https:// and a host in ASCII, not {url!r}.")
    if "@" in parts.netloc:
        raise ConfigurationError(f"{what} may not hold credentials: {parts.hostname!r} is asked as nobody.")
    return parts._replace(netloc=authority(parts.scheme, parts.netloc))


def page_at(url: str, base_url: str | None, root_path: str, known: RootPaths) -> Page:
    """The request that a URL, or a path below `base_url`, stands for.

    `root_path` is that of the app, and `known` are those by which requests came; the path of `base_url` stands in their
    place where that is given. Raises `ConfigurationError` where the host is not known, or for what is no URL.
    """
    for what, given in (("A URL", url), ("base_url", base_url or "")):
        if any("\ud800" <= character <= "\udfff" for character in given):
            # As a text of JSON may hold it.
            raise ConfigurationError(f"{what} holds half of a surrogate pair, which no URL can: {given!r}.")
    base = None if base_url is None else _origin(base_url, "base_url")
    above = "" if base is None else base.path.rstrip("/")
    if url.startswith("/") and not url.startswith("//"):
        if base is None:
            raise ConfigurationError(
                f"{url!r} does not say which host clients ask, and each host has its own stored response: add "
                'base_url="https://shop.example", the scheme and the host as clients send them.'
            )
        path, _, query = url.partition("#")[0].partition("?")
        whole = base._replace(path=above + path, query=query)
    else:
        whole = _origin(url, "A URL")
    raw = quote(whole.path or "/", safe=_AS_IS)
    return Page(
        whole.scheme,
        whole.netloc,
        unquote(above) or root_path or known.above(unquote(raw)),
        unquote(raw),
        raw,
        quote(whole.query, safe=_AS_IS + "?"),
    )


def any_fields(headers: Mapping[str, str] | None) -> tuple[tuple[bytes, bytes], ...]:
    """Request header fields as ASGI has them, credentials too; raises `ConfigurationError` for what is none."""
    fields: list[tuple[bytes, bytes]] = []
    named: Mapping[str, str] = {} if headers is None else headers
    for given, value in named.items():
        name, text = str(given).lower(), str(value)
        if not is_token(name.encode("utf-8", "replace")) or not text.isprintable():
            raise ConfigurationError(f"headers holds request header fields, and {given!r} is none, or its value.")
        fields.append((name.encode(), text.encode("utf-8", "surrogatepass")))
    return tuple(fields)


def request_fields(headers: Mapping[str, str] | None) -> tuple[tuple[bytes, bytes], ...]:
    """Request header fields of a page, such as `Accept`, as ASGI has them; raises for credentials and for no fields."""
    fields = any_fields(headers)
    for name in headers or ():
        lower = name.lower()
        if lower in _NOT_GIVEN or lower.startswith("if-"):
            why = "it says who asks, and this asks as nobody" if lower in _CREDENTIALS else "the cache sets it itself"
            raise ConfigurationError(f"headers cannot hold {name!r}: {why}.")
    return fields
