"""Why a required or optimal test of the suite fails with the default options."""

from __future__ import annotations

__all__ = ["REASONS"]

_OLD_AGE = (
    "The edition is older than RFC 9111, whose section 5.1 takes the first member of several; the newer edition asks "
    "for that."
)
_BROKEN_AGE = (
    "The edition is older than RFC 9111, whose section 5.1 has an Age that is no number ignored; the newer edition "
    "asks for that."
)
_COOKIE = (
    "A response with Set-Cookie is not stored by default, because every later caller would get the first one's "
    "cookie; HeaderOptions(set_cookie=True) stores it."
)

_GONE = (
    "The origin closes the connection, and the older edition then wants an answer of the origin's own; ours is a 502. "
    "The newer edition is content with that."
)

REASONS: dict[str, str] = {
    "stale-close-must-revalidate": _GONE,
    "stale-close-proxy-revalidate": _GONE,
    "stale-close-no-cache": _GONE,
    "stale-close-s-maxage=2": _GONE,
    "age-parse-prefix-twoline": _OLD_AGE,
    "age-parse-dup-0": _OLD_AGE,
    "age-parse-dup-0-twoline": _OLD_AGE,
    "age-parse-dup-old": _OLD_AGE,
    "age-parse-nonnumeric": _BROKEN_AGE,
    "age-parse-negative": _BROKEN_AGE,
    "age-parse-float": _BROKEN_AGE,
    "age-parse-parameter": _BROKEN_AGE,
    "age-parse-numeric-parameter": _BROKEN_AGE,
    "headers-store-Set-Cookie": _COOKIE,
    "304-etag-update-response-Set-Cookie": _COOKIE,
    "other-set-cookie": _COOKIE,
    "304-etag-update-response-ETag": (
        "The 304 names another ETag than the stored response has, and RFC 9111 section 4.3.4 forbids to use it then. "
        "The whole is asked for, to which this test's origin has no answer."
    ),
    "vary-normalise-space": (
        "Only a field that is known to be a list may be compared without its white space (RFC 9111 section 4.1); the "
        "test's is not known."
    ),
    "vary-normalise-lang-order": (
        "Applications take the first of equally preferred languages, so another order may be another response."
    ),
    "vary-normalise-lang-select": (
        "Which language an application would choose for another request is for it to say: what varies by "
        "Accept-Language is matched by that field, not by the Content-Language of what is stored."
    ),
    "conditional-lm-fresh-no-lm": (
        "The test asks for a 304 to a date that lies before the response was made. Without Last-Modified nobody knows "
        "that it has not been modified since."
    ),
    "partial-store-partial-complete": (
        "The rest of a part can only be combined with it under one strong validator (RFC 9111 section 3.4), and the "
        "test's part has none: the whole is fetched."
    ),
    "interim-102": "uvicorn has no way to send an interim response.",
    "interim-103": "uvicorn has no way to send an interim response; where a server has one, early hints pass.",
}
