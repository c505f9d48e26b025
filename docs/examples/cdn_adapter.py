import json
from collections.abc import Sequence
from urllib.parse import quote

from fastapi_cacheinval.contrib.cdn import (
    CDN,
    Answer,
    Done,
    Purge,
    PurgeRequest,
    Rate,
    Refused,
    Retry,
    Verdict,
    bounded_key,
)


class Acme:
    """A CDN that takes one tag of at most 128 characters at a time, by DELETE."""

    def __init__(self, account: str, token: str) -> None:
        self._base = f"https://api.acme.example/{account}/tags"
        self._headers = (("Authorization", f"Bearer {token}"),)
        self.rate = Rate(per_second=10, burst=50)

    def key(self, tag: str) -> str:
        return bounded_key(tag, longest=128, forbidden=",;")

    def requests(self, purge: Purge) -> Sequence[PurgeRequest]:
        if purge.everything:
            return [PurgeRequest("DELETE", self._base, self._headers)]
        return [
            PurgeRequest("DELETE", f"{self._base}/{quote(self.key(tag), safe='')}", self._headers, tags=(tag,))
            for tag in purge.tags
        ]

    def judge(self, request: PurgeRequest, answer: Answer) -> Verdict:
        if answer.status == 200 and answer.whole and json.loads(answer.body or b"null") == {"purged": True}:
            return Done()
        if answer.status in (401, 403):
            return Refused("the token is wrong")
        if answer.status == 422:
            return Refused("it does not take the tag", by_tag=True)
        return Retry(f"it answered {answer.status}")


def test_acme() -> None:
    acme: CDN = Acme("shop", "secret")
    one, other = acme.requests(Purge(("brand:a/b", "x" * 200)))
    assert one.url.endswith("/tags/brand%3Aa%2Fb")
    assert len(acme.key("x" * 200)) == 71
    assert acme.judge(one, Answer(200, body=b'{"purged": true}')) == Done()
    assert isinstance(acme.judge(other, Answer(503)), Retry)
