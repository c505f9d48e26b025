"""Varnish with its `xkey` module: purges by `PURGE` requests that a piece of VCL understands (docs/cdn.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.cdn._checks import checked_headers, checked_tag, checked_url, place
from fastapi_cacheinval.contrib.cdn.keys import batches, bounded_key
from fastapi_cacheinval.contrib.cdn.requests import Answer, Done, Purge, PurgeRequest, Rate, Refused, Retry, Verdict

__all__ = ["Varnish"]

# Set by the VCL on its own answers, so that an app behind it that answers PURGE with 200 confirms nothing.
_CONFIRMED: Final = "xkey-purged"
_COUNT: Final = re.compile(r"[0-9]+|everything")
_LONGEST_KEY: Final = 1_024
_RATE: Final = Rate(1_000, 1_000)


class Varnish:
    """One Varnish, by the URL at which this process reaches it; several are several adapters: `[Varnish(url), ...]`.

    `headers` go with each purge (a password that the VCL asks for). `most_bytes` bounds the keys in one request:
    Varnish itself refuses a header over `http_req_hdr_len`, 8 KiB unless it is told otherwise.
    Everything goes hard, by a ban; with `all_tag`, a tag that every response of the app carries, that is purged
    instead, softly where that is asked. Raises `ConfigurationError` for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        most_bytes: int = 7_000,
        all_tag: str | None = None,
        rate: Rate = _RATE,
    ) -> None:
        if most_bytes < _LONGEST_KEY:
            raise ConfigurationError(f"most_bytes has room for one key at least: {_LONGEST_KEY}, not {most_bytes!r}.")
        self._url = checked_url(url, "A Varnish")
        self._headers = checked_headers(headers)
        self._most_bytes = most_bytes
        self.all_tag = checked_tag(all_tag)
        self.rate = rate

    def __repr__(self) -> str:
        return f"<Varnish {place(self._url)}>"

    def key(self, tag: str) -> str:
        """The tag; a comma, which separates keys in the `xkey` header, is percent-encoded."""
        return bounded_key(tag, longest=_LONGEST_KEY, forbidden=",")

    def requests(self, purge: Purge) -> list[PurgeRequest]:
        """`PURGE` with the keys in `xkey-purge` or `xkey-softpurge`, or with `xkey-everything`, which is hard."""
        if purge.everything and self.all_tag is None:
            return [self._request("xkey-everything", "1", ())]
        field = "xkey-softpurge" if purge.soft else "xkey-purge"
        if purge.everything:
            assert self.all_tag is not None
            return [self._request(field, self.key(self.all_tag), ())]
        groups = batches(purge.tags, self.key, most=1_000, most_bytes=self._most_bytes)
        return [self._request(field, " ".join(keys), tags) for tags, keys in groups]

    def _request(self, field: str, value: str, tags: tuple[str, ...]) -> PurgeRequest:
        return PurgeRequest("PURGE", self._url, ((field, value), *self._headers), tags=tags)

    def judge(self, request: PurgeRequest, answer: Answer) -> Verdict:
        """200 with how many were purged in `xkey-purged`, which only the VCL's own answer has, confirms it."""
        if answer.status == 200 and _COUNT.fullmatch(answer.headers.get(_CONFIRMED, "")):
            return Done()
        if answer.status >= 500 or answer.status in (408, 429):
            return Retry(f"Varnish answered {answer.status}")
        if answer.status in (400, 413, 431):
            return Refused(f"Varnish answered {answer.status}: it cannot read the headers of the purge", by_tag=True)
        if answer.status == 403:
            return Refused("Varnish answered 403: this address is not in the ACL of its VCL, or the password is wrong")
        return Refused(f"{answer.status} came back without {_CONFIRMED}: the VCL there has no part that purges by xkey")
