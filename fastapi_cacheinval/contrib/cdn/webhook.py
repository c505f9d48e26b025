"""Any other CDN, or a program of one's own that tells it: one HTTP request with JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Final

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.cdn._answers import about_access, as_text, told_to_wait
from fastapi_cacheinval.contrib.cdn._checks import checked_headers, checked_token, checked_url, place
from fastapi_cacheinval.contrib.cdn.keys import batches, bounded_key
from fastapi_cacheinval.contrib.cdn.requests import Answer, Done, Purge, PurgeRequest, Rate, Refused, Retry, Verdict

__all__ = ["Webhook"]

_LONGEST_KEY: Final = 1_024
_RATE: Final = Rate(20, 100)


def _as_told(purge: Purge) -> object:
    return {"tags": list(purge.tags), "soft": purge.soft, "everything": purge.everything}


class Webhook:
    """A purge as an HTTP request: `{"tags": [...], "soft": false, "everything": false}`; any 2xx confirms it.

    `body` makes another JSON value of a `Purge`, whose tags are keys then. At most `most` keys of together `most_bytes`
    bytes are in one request. With a `secret`, `signature_header` carries `sha256=` and the hexadecimal HMAC-SHA256 of
    the body. Raises `ConfigurationError` for a URL, a method or headers that cannot be sent.
    """

    def __init__(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        secret: str | bytes | None = None,
        signature_header: str = "X-Cacheinval-Signature",
        body: Callable[[Purge], object] = _as_told,
        most: int = 100,
        most_bytes: int = 64_000,
        rate: Rate = _RATE,
    ) -> None:
        if most < 1 or most_bytes < _LONGEST_KEY:
            raise ConfigurationError(f"most is at least 1 and most_bytes {_LONGEST_KEY}, not {most!r}, {most_bytes!r}.")
        if secret is not None and not secret:
            raise ConfigurationError("The secret of a webhook must not be empty.")
        self._url = checked_url(url, "A webhook")
        self._method = checked_token(method, "A method")
        self._headers = (("Content-Type", "application/json"), *checked_headers(headers))
        checked_headers({signature_header: "x"})
        self._signature_header = signature_header
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._body = body
        self._most = most
        self._most_bytes = most_bytes
        self.rate = rate

    def __repr__(self) -> str:
        return f"<Webhook {place(self._url)}>"

    def key(self, tag: str) -> str:
        """The tag as it is."""
        return bounded_key(tag, longest=_LONGEST_KEY)

    def requests(self, purge: Purge) -> list[PurgeRequest]:
        """Within `most` and `most_bytes`."""
        if purge.everything:
            return [self._request(purge, ())]
        # As JSON each key has two quotes, and a comma and a space between it and the next.
        groups = batches(purge.tags, self.key, most=self._most, most_bytes=self._most_bytes, between=4)
        return [self._request(Purge(keys, purge.soft), tags) for tags, keys in groups]

    def _request(self, purge: Purge, tags: tuple[str, ...]) -> PurgeRequest:
        body = json.dumps(self._body(purge)).encode()
        headers = self._headers
        if self._secret is not None:
            signature = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers = (*headers, (self._signature_header, signature))
        return PurgeRequest(self._method, self._url, headers, body, tags)

    def judge(self, request: PurgeRequest, answer: Answer) -> Verdict:
        """Any 2xx confirms it; a redirection is followed nowhere."""
        match answer.status:
            case status if 200 <= status < 300:
                return Done()
            case status if status in (408, 425, 429) or status >= 500:
                return Retry(f"it answered {status}", told_to_wait(answer))
            case 400 | 413 | 422 as status if not about_access(as_text(answer), map(self.key, request.tags)):
                return Refused(f"it answered {status}", by_tag=True)
            case status if 300 <= status < 400:
                return Refused(f"it answered {status}: redirections are not followed, name the place itself")
            case status:
                return Refused(f"it answered {status}")
