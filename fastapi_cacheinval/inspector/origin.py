"""Whether a request that changes something comes from the inspector's own page: pure functions over its fields."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

__all__ = ["COOKIE", "FIELD", "new_token", "token_in", "why_foreign"]

COOKIE = "cacheinval-inspector"
"""The cookie with the page's token."""

FIELD = "x-cacheinval-inspector"
"""The request field in which the page sends its token back; no form of another site can send one."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_PORTS = {"http": 80, "https": 443}


def new_token() -> str:
    """A token of 256 random bits."""
    return secrets.token_urlsafe(32)


def token_in(cookies: str) -> str | None:
    """The token in a `Cookie` field; None where there is none that this page can have made."""
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    return found.value if found is not None and _TOKEN.match(found.value) else None


def why_foreign(headers: Mapping[str, str]) -> str | None:
    """Why a request is not taken for one of the page; None where it is.

    The token in its field has to be the one in the cookie, and the browser must not say that another site asks. Of two
    sites the browser's own word, `Sec-Fetch-Site`, comes first: it stays true behind a proxy that changes the host.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        if site.strip().lower() != "same-origin":
            return "the browser says that another site asks"
    elif origin is not None and not _same_host(origin, headers.get("host", "")):
        return "its origin is not this host"
    sent, kept = headers.get(FIELD, ""), token_in(headers.get("cookie", ""))
    if kept is None or not secrets.compare_digest(sent.encode(), kept.encode()):
        return "it does not carry the token of the page: load the page again"
    return None


def _same_host(origin: str, host: str) -> bool:
    """Whether an origin is that of a `Host`, whatever the scheme: a proxy may have taken TLS off."""
    try:
        given = urlsplit(origin.strip())
        default = _PORTS.get(given.scheme)
        asked = urlsplit(f"//{host.strip()}")
        return (
            default is not None
            and bool(given.hostname)
            and given.hostname == asked.hostname
            and (given.port or default) == (asked.port or default)
        )
    except ValueError:
        return False
