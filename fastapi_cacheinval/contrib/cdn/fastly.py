"""Fastly: purges by surrogate key, hard or soft, over its API."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from fastapi_cacheinval.contrib.cdn._answers import about_access, as_text, json_object, seconds_to, told_to_wait
from fastapi_cacheinval.contrib.cdn._checks import checked_id, checked_tag, checked_token, checked_url
from fastapi_cacheinval.contrib.cdn.keys import batches, bounded_key
from fastapi_cacheinval.contrib.cdn.requests import Answer, Done, Purge, PurgeRequest, Rate, Refused, Retry, Verdict

__all__ = ["Fastly"]

# https://www.fastly.com/documentation/reference/api/purging/ and, for the keys in one request,
# https://docs.rs/fastly-api/latest/fastly_api/apis/purge_api/index.html
_MOST_KEYS: Final = 256
_LONGEST_KEY: Final = 1_024
# Of the keys in one request: the answer repeats them, and has to be within what is read of one however it is escaped.
_MOST_BYTES: Final = 8_000
# 100,000 purges an hour, on an average, is what an account may make.
_RATE: Final = Rate(20, 200)
# Of one purge, such as "108-1391560174-974124"; a word has no digit.
_ID: Final = re.compile(r"(?=\D*\d)\S{1,100}")


class Fastly:
    """A Fastly service, purged with an API token of scope `purge_select` (and `purge_all` without `all_tag`).

    Fastly cannot purge everything softly, and its purge of everything takes what is not the app's as well. With
    `all_tag`, a tag that every response of the app carries, that tag is purged instead, softly where that is asked.
    Fastly's API client documents 256 keys in one request. It is assumed that a key has at most 1,024 bytes, that an
    account may make 100,000 purges an hour (`rate` is 20 a second after 200), and that a 200 has an id for each key.
    Raises `ConfigurationError` for an id, a token or a URL that cannot be one.
    """

    def __init__(
        self,
        service_id: str,
        token: str,
        *,
        all_tag: str | None = None,
        rate: Rate = _RATE,
        api: str = "https://api.fastly.com",
    ) -> None:
        service = checked_id(service_id, "A Fastly service id")
        self._base = f"{checked_url(api, 'The Fastly API').rstrip('/')}/service/{service}"
        self._headers = (
            ("Fastly-Key", checked_token(token, "A Fastly token")),
            ("Accept", "application/json"),
            ("Content-Type", "application/json"),
        )
        self.all_tag = checked_tag(all_tag)
        self._service = service
        self.rate = rate

    def __repr__(self) -> str:
        return f"<Fastly {self._service}>"

    def key(self, tag: str) -> str:
        """The tag: a surrogate key may be what a tag may be."""
        return bounded_key(tag, longest=_LONGEST_KEY)

    def requests(self, purge: Purge) -> list[PurgeRequest]:
        """At most 256 keys in one; everything by `all_tag`, or by `purge_all`, which is hard."""
        if purge.everything and self.all_tag is None:
            return [PurgeRequest("POST", f"{self._base}/purge_all", self._headers)]
        if purge.everything:
            assert self.all_tag is not None
            return [self._request((), (self.key(self.all_tag),), soft=purge.soft)]
        groups = batches(purge.tags, self.key, most=_MOST_KEYS, most_bytes=_MOST_BYTES)
        return [self._request(tags, keys, soft=purge.soft) for tags, keys in groups]

    def _request(self, tags: tuple[str, ...], keys: tuple[str, ...], *, soft: bool) -> PurgeRequest:
        headers = (*self._headers, ("Fastly-Soft-Purge", "1")) if soft else self._headers
        body = json.dumps({"surrogate_keys": keys}).encode()
        return PurgeRequest("POST", f"{self._base}/purge", headers, body, tags)

    def judge(self, request: PurgeRequest, answer: Answer) -> Verdict:
        """200 with the id of a purge for each key confirms it; 429 says when the hour's budget is there again."""
        match answer.status:
            case 200:
                return _judged(request, json_object(answer))
            case 429:
                return Retry("Fastly's rate limit is reached (429)", told_to_wait(answer) or _until_reset(answer))
            case 408:
                return Retry("Fastly answered 408")
            case status if status >= 500:
                return Retry(f"Fastly answered {status}", told_to_wait(answer))
            case 400 | 413 | 422 as status if not _refuses_access(request, answer):
                return Refused(f"Fastly answered {status}: it does not take a key", by_tag=True)
            case 400 | 401 | 403 | 413 | 422 as status:
                return Refused(f"Fastly answered {status}: the token is wrong, or may not purge this service")
            case 404:
                return Refused("Fastly answered 404: there is no such service")
            case status:
                return Refused(f"Fastly answered {status}")


def _keys(request: PurgeRequest) -> list[str]:
    """The keys that a request names; none where it is for all that there is."""
    return json.loads(request.body)["surrogate_keys"] if request.body else []


def _judged(request: PurgeRequest, said: dict[str, Any] | None) -> Verdict:
    keys = _keys(request)
    if said is None:
        confirmed = 0
    elif keys:
        confirmed = sum(isinstance(number := said.get(key), str) and bool(_ID.fullmatch(number)) for key in keys)
    else:
        confirmed = int(said.get("status") == "ok")
    if confirmed == max(len(keys), 1):
        return Done()
    if not confirmed:
        return Retry("an answer came back that is not Fastly's")
    return Refused(f"Fastly answered 200 for {confirmed} of {len(keys)} keys", by_tag=True)


def _refuses_access(request: PurgeRequest, answer: Answer) -> bool:
    said = json_object(answer)
    text = as_text(answer) if said is None else f"{said.get('msg')} {said.get('detail')}"
    return about_access(text, _keys(request))


def _until_reset(answer: Answer) -> float | None:
    try:
        return seconds_to(answer, float(answer.headers.get("fastly-ratelimit-reset", "")))
    except ValueError:
        return None
