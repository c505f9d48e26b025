"""Cloudflare: purges by cache tag over its API, always hard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal, cast

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.cdn._answers import about_access, as_text, json_object, told_to_wait
from fastapi_cacheinval.contrib.cdn._checks import checked_id, checked_tag, checked_token, checked_url
from fastapi_cacheinval.contrib.cdn.keys import batches, bounded_key
from fastapi_cacheinval.contrib.cdn.requests import Answer, Done, Purge, PurgeRequest, Rate, Refused, Retry, Verdict

__all__ = ["Cloudflare"]

# https://developers.cloudflare.com/cache/how-to/purge-cache/
_MOST_TAGS: Final = 100
_LONGEST_TAG: Final = 1_024
_PLANS: Final = {
    "free": Rate(5 / 60, 25),
    "pro": Rate(5, 25),
    "business": Rate(10, 50),
    "enterprise": Rate(50, 500),
}

_CODE: Final = re.compile(r"[0-9]{1,9}")
# Headers that are malformed, unknown keys, tokens that are invalid, expired or may not do it, sessions that have ended.
_ACCESS: Final = frozenset({6003, 6004, 9103, 9106, 9107, 9109, 9300, 10000, 10001, *range(6100, 6200)})

Plan = Literal["free", "pro", "business", "enterprise"]


class Cloudflare:
    """A Cloudflare zone, purged with an API token that has the permission Cache Purge.

    `plan` says how fast the account may purge, and `most_tags` how many tags one request may hold, 1 to 100 by
    Cloudflare's documentation (30 in an older one). Cloudflare knows no soft purge: what is soft in the cache is hard
    there. Its purge of everything takes the whole zone; with `all_tag`, a tag that every response of the app carries,
    that is purged instead. Cloudflare documents how many purges an account may make: 5 a minute after 25 (`free`), 5 a
    second after 25 (`pro`), 10 after 50 (`business`), 50 after 500 (`enterprise`). It is assumed that a tag has at most
    1,024 characters and is compared without case, and which numbers of errors are about access.
    Raises `ConfigurationError` for what cannot work.
    """

    def __init__(
        self,
        zone_id: str,
        token: str,
        *,
        plan: Plan = "free",
        most_tags: int = _MOST_TAGS,
        all_tag: str | None = None,
        rate: Rate | None = None,
        api: str = "https://api.cloudflare.com/client/v4",
    ) -> None:
        if plan not in _PLANS:
            raise ConfigurationError(f"A Cloudflare plan is one of {', '.join(_PLANS)}, not {plan!r}.")
        if most_tags < 1:
            raise ConfigurationError(f"most_tags is at least 1, not {most_tags!r}.")
        self._zone = checked_id(zone_id, "A Cloudflare zone id")
        self._url = f"{checked_url(api, 'The Cloudflare API').rstrip('/')}/zones/{self._zone}/purge_cache"
        self._headers = (
            ("Authorization", f"Bearer {checked_token(token, 'A Cloudflare token')}"),
            ("Accept", "application/json"),
            ("Content-Type", "application/json"),
        )
        self._most_tags = most_tags
        self.all_tag = checked_tag(all_tag)
        self.rate = _PLANS[plan] if rate is None else rate

    def __repr__(self) -> str:
        return f"<Cloudflare {self._zone}>"

    def key(self, tag: str) -> str:
        """The tag in lower case, as Cloudflare compares it, with commas, which separate tags there, encoded."""
        return bounded_key(tag.lower(), longest=_LONGEST_TAG, forbidden=",").lower()

    def requests(self, purge: Purge) -> list[PurgeRequest]:
        """At most `most_tags` tags in one."""
        if purge.everything and self.all_tag is None:
            return [self._request({"purge_everything": True}, ())]
        if purge.everything:
            assert self.all_tag is not None
            return [self._request({"tags": [self.key(self.all_tag)]}, ())]
        groups = batches(purge.tags, self.key, most=self._most_tags, most_bytes=self._most_tags * _LONGEST_TAG)
        return [self._request({"tags": keys}, tags) for tags, keys in groups]

    def _request(self, body: dict[str, Any], tags: tuple[str, ...]) -> PurgeRequest:
        return PurgeRequest("POST", self._url, self._headers, json.dumps(body).encode(), tags)

    def judge(self, request: PurgeRequest, answer: Answer) -> Verdict:
        """200 with `success` and no error in its JSON confirms it; 200 alone does not."""
        said = json_object(answer) or {}
        errors: object = said.get("errors")
        if answer.status == 200 and said.get("success") is True and not errors:
            return Done()
        codes = _codes(errors)
        shown = f" (errors {', '.join(map(str, codes[:5]))})" if codes else ""
        match answer.status:
            case 200 if "success" not in said:
                return Retry("an answer came back that is not Cloudflare's")
            case 429:
                return Retry("Cloudflare's rate limit is reached (429)", told_to_wait(answer))
            case 408:
                return Retry("Cloudflare answered 408")
            case status if status >= 500:
                return Retry(f"Cloudflare answered {status}{shown}", told_to_wait(answer))
            case 200 | 400 | 413 | 422 as status if _ACCESS.isdisjoint(codes) and not _about_access(
                request, answer, errors
            ):
                return Refused(f"Cloudflare answered {status} without success{shown}", by_tag=True)
            case 200 | 400 | 401 | 403 | 413 | 422 as status:
                return Refused(f"Cloudflare answered {status}{shown}: the token is wrong, or may not purge this zone")
            case 404:
                return Refused(f"Cloudflare answered 404{shown}: there is no such zone")
            case status:
                return Refused(f"Cloudflare answered {status}{shown}")


def _each(errors: object) -> Iterator[dict[str, Any]]:
    """The errors of an answer, and those that led to them."""
    for error in cast("list[object]", errors) if isinstance(errors, list) else ():
        if isinstance(error, dict):
            fields = cast("dict[str, Any]", error)
            yield fields
            yield from _each(fields.get("error_chain"))


def _codes(errors: object) -> list[int]:
    """Their numbers; their texts may repeat what was sent."""
    codes = [error.get("code") for error in _each(errors)]
    return [int(code) for code in codes if isinstance(code, int) or (isinstance(code, str) and _CODE.fullmatch(code))]


def _about_access(request: PurgeRequest, answer: Answer, errors: object) -> bool:
    texts = " ".join(str(error.get("message")) for error in _each(errors)) if errors else as_text(answer)
    return about_access(texts, json.loads(request.body).get("tags", ()))
