"""The adapters as pure functions: how tags become keys, keys requests, and answers verdicts."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import ConfigurationError, Receipt
from fastapi_cacheinval.contrib.cdn import (
    CDN,
    Answer,
    Cloudflare,
    Done,
    Fastly,
    Purge,
    PurgeRequest,
    Refused,
    Retry,
    Varnish,
    Webhook,
    batches,
    path_key,
    purge_of,
)
from fastapi_cacheinval.core.tags import path_tag
from tests.contrib.cdn.fakes import TOKEN

FASTLY = Fastly("abc", TOKEN)
CLOUDFLARE = Cloudflare("abc", TOKEN)
VARNISH = Varnish("http://varnish:6081/")
WEBHOOK = Webhook("https://example.com/hook?secret=of-the-url", secret="a secret")
ALL: list[CDN] = [FASTLY, CLOUDFLARE, VARNISH, WEBHOOK]

ADAPTERS = pytest.mark.parametrize("cdn", ALL, ids=lambda cdn: type(cdn).__name__)

# Tags in the cache's own form.
TAGS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40) | st.builds(
    lambda char, size: char * size, st.sampled_from("ab,%Z"), st.integers(1000, 1024)
)


def named(request: PurgeRequest) -> list[str]:
    """The keys that stand in a request, as the CDN reads them."""
    for name, value in request.headers:
        if name in ("xkey-purge", "xkey-softpurge"):
            return re.split("[ ,]+", value)
    body = json.loads(request.body)
    return body.get("surrogate_keys") or body["tags"]


@ADAPTERS
@given(tags=st.lists(TAGS, min_size=1, max_size=400), soft=st.booleans())
def test_each_tag_is_in_one_request_within_the_limits(cdn: CDN, tags: list[str], soft: bool) -> None:
    """Each tag exactly once, its key in the same request, no key twice in one, no request over any limit."""
    requests = cdn.requests(Purge(tuple(tags), soft))
    told = [tag for request in requests for tag in request.tags]
    assert sorted(told) == sorted(set(tags))
    for request in requests:
        keys = named(request)
        assert set(keys) == {cdn.key(tag) for tag in request.tags}
        assert len(keys) == len(set(keys))
        assert all(len(name) + len(value) + 2 <= 8_000 for name, value in request.headers)
        assert len(keys) <= {Fastly: 256, Webhook: 100, Cloudflare: 100}.get(type(cdn), 10_000)
        if cdn is WEBHOOK:
            assert sum(len(key) + 4 for key in keys) <= 64_004


@ADAPTERS
@given(tag=TAGS | st.text(max_size=50))
def test_a_key_is_what_the_cdn_takes(cdn: CDN, tag: str) -> None:
    """Printable ASCII without white space, at most 1,024 bytes, whatever the tag is; the same each time."""
    key = cdn.key(tag)
    assert re.fullmatch(r"[\x21-\x7e]{1,1024}", key)
    assert key == cdn.key(tag)
    if cdn is CLOUDFLARE or cdn is VARNISH:
        assert "," not in key
    if cdn is CLOUDFLARE:
        assert key == key.lower()
        assert cdn.key(tag.upper()) == key or tag.upper().lower() != tag.lower()


@ADAPTERS
@given(tag=st.from_regex(r"[a-z0-9:._/-]{1,200}", fullmatch=True))
def test_a_plain_tag_stays_as_it_is(cdn: CDN, tag: str) -> None:
    """What is in no CDN's way is not changed."""
    assert cdn.key(tag) == tag


@given(
    tags=st.lists(TAGS, max_size=60),
    most=st.integers(1, 20),
    most_bytes=st.integers(1, 3_000),
    between=st.integers(0, 4),
)
def test_batches(tags: list[str], most: int, most_bytes: int, between: int) -> None:
    """Each tag once; within both limits, but for a key that is too long by itself; as few as their order allows."""
    groups = batches(tags, str.lower, most=most, most_bytes=most_bytes, between=between)
    assert [tag for named, _ in groups for tag in named] == list(dict.fromkeys(tags))
    sizes = [sum(map(len, keys)) + between * (len(keys) - 1) for _, keys in groups]
    for (named, keys), size in zip(groups, sizes, strict=True):
        assert set(keys) == {tag.lower() for tag in named}
        assert len(keys) <= most
        assert size <= most_bytes or len(keys) == 1
    for (_, keys), (_, following), size in zip(groups, groups[1:], sizes, strict=False):
        assert len(keys) == most or size + between + len(following[0]) > most_bytes


@given(path=st.text(max_size=30).map("/".__add__) | st.just("/" + "a" * 2_000))
def test_a_path_has_one_key(path: str) -> None:
    """As the response has it, and as the receipt of a purge names it, also where that is a digest."""
    in_a_receipt = path_tag(path).removeprefix("\x01path:")
    assert path_key(path) == path_key(in_a_receipt)
    assert re.fullmatch("path:[0-9a-f]{32}", path_key(path))
    assert all(cdn.key(path_key(path)) == path_key(path) for cdn in ALL)


def test_what_a_receipt_is_at_a_cdn() -> None:
    """Tags, paths as tags, softness; everything hides the rest."""
    receipt = Receipt(1, 2, ("a", "b"), soft=True, paths=("/x",))
    assert purge_of(receipt) == Purge(("a", "b", path_key("/x")), soft=True)
    assert purge_of(Receipt(1, 2, ("a",), soft=False, everything=True)) == Purge(everything=True)


PURGE = Purge(("a",))
JSON = {"content-type": "application/json"}
DATE = formatdate(1_700_000_000, usegmt=True)


@pytest.mark.parametrize(
    ("cdn", "answer", "verdict"),
    [
        (FASTLY, Answer(200, JSON, b'{"a": "1-2-3"}'), Done()),
        (FASTLY, Answer(200, JSON, b'{"a": "1-2', whole=False), Retry),
        (FASTLY, Answer(200, JSON, b'{"a": "1-2'), Retry),
        (FASTLY, Answer(200, {}, b"<html>"), Retry),
        (FASTLY, Answer(200, {}, b"[" * 100_000), Retry),
        (FASTLY, Answer(429, {"retry-after": "7"}), 7.0),
        (FASTLY, Answer(429, {"date": DATE, "fastly-ratelimit-reset": "1700000030"}), 30.0),
        (FASTLY, Answer(429, {"fastly-ratelimit-reset": "soon"}), None),
        (FASTLY, Answer(503, {"retry-after": formatdate(1_700_000_009, usegmt=True), "date": DATE}), 9.0),
        (FASTLY, Answer(503, {"retry-after": "inf"}), None),
        (FASTLY, Answer(503, {"retry-after": "-4"}), None),
        (FASTLY, Answer(503, {"retry-after": "Wed, 99 Nov 99999 99:99:99 GMT", "date": DATE}), None),
        (FASTLY, Answer(400), True),
        (FASTLY, Answer(413), True),
        (FASTLY, Answer(401), False),
        (FASTLY, Answer(404), False),
        (FASTLY, Answer(302, {"location": "/"}), False),
        (CLOUDFLARE, Answer(200, JSON, b'{"success": true}'), Done()),
        (CLOUDFLARE, Answer(200, JSON, b'{"success": "yes"}'), True),
        (CLOUDFLARE, Answer(200, JSON, b'{"success": false, "errors": [{"code": 1}, 2, {}]}'), True),
        (CLOUDFLARE, Answer(200, JSON, b'{"success": true', whole=False), Retry),
        (CLOUDFLARE, Answer(200, JSON, b"[]"), Retry),
        (CLOUDFLARE, Answer(429, {"retry-after": "3"}), 3.0),
        (CLOUDFLARE, Answer(403, JSON, b'{"success": false, "errors": "none"}'), False),
        (CLOUDFLARE, Answer(400), True),
        (CLOUDFLARE, Answer(405), False),
        (VARNISH, Answer(200, {"xkey-purged": "0"}), Done()),
        (VARNISH, Answer(200), False),
        (VARNISH, Answer(403), False),
        (VARNISH, Answer(405), False),
        (VARNISH, Answer(400), True),
        (VARNISH, Answer(503), Retry),
        (WEBHOOK, Answer(200), Done()),
        (WEBHOOK, Answer(204), Done()),
        (WEBHOOK, Answer(301), False),
        (WEBHOOK, Answer(422), True),
        (WEBHOOK, Answer(403), False),
        (WEBHOOK, Answer(500, {"retry-after": "2.5"}), 2.5),
    ],
)
def test_what_an_answer_means(cdn: CDN, answer: Answer, verdict: Any) -> None:
    """Done only where it is confirmed; what passes is tried again; a tag is suspected where it may be at fault."""
    (request,) = cdn.requests(PURGE)
    found = cdn.judge(request, answer)
    match verdict:
        case bool():
            assert isinstance(found, Refused)
            assert found.by_tag is verdict
        case float() | None:
            assert isinstance(found, Retry)
            assert found.after == verdict
        case Done():
            assert found == verdict
        case _:
            assert isinstance(found, Retry)


@pytest.mark.parametrize("date", [{}, {"date": "yesterday"}])
def test_a_date_to_wait_for_is_obeyed_without_a_date_of_the_answer(date: dict[str, str]) -> None:
    """`Retry-After` and Fastly's reset, in an answer that does not tell its server's time: this machine's has to do."""
    then = time.time() + 600
    told = {"retry-after": formatdate(then, usegmt=True), **date}
    answers = [(cdn, Answer(503, told)) for cdn in (CLOUDFLARE, FASTLY, WEBHOOK)]
    for cdn, answer in [*answers, (FASTLY, Answer(429, {"fastly-ratelimit-reset": str(int(then)), **date}))]:
        (request,) = cdn.requests(PURGE)
        found = cdn.judge(request, answer)
        assert isinstance(found, Retry)
        assert found.after is not None
        assert 300 < found.after <= 600
        past = cdn.judge(request, Answer(503, {"retry-after": formatdate(time.time() - 600, usegmt=True), **date}))
        assert isinstance(past, Retry)
        assert past.after == 0.0


@ADAPTERS
@given(
    status=st.integers(100, 599),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "date", "fastly-ratelimit-reset", "xkey-purged"]), st.text()
    ),
    body=st.binary(max_size=40)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()),
    whole=st.booleans(),
)
def test_no_answer_makes_an_adapter_fail(
    cdn: CDN, status: int, headers: dict[str, str], body: bytes, whole: bool
) -> None:
    """Whatever comes is judged, quickly, and no wait is negative."""
    (request,) = cdn.requests(PURGE)
    began = time.monotonic()
    verdict = cdn.judge(request, Answer(status, headers, body, whole))
    assert time.monotonic() - began < 1
    if isinstance(verdict, Retry) and verdict.after is not None:
        assert 0 <= verdict.after < float("inf")
    if isinstance(verdict, Done):
        assert 200 <= status < 300


def test_a_webhook_is_signed_and_may_have_its_own_form() -> None:
    """The signature is that of the bytes that are sent; `body` makes other JSON, with keys for tags."""
    (request,) = WEBHOOK.requests(Purge(("a", "b"), soft=True))
    assert json.loads(request.body) == {"tags": ["a", "b"], "soft": True, "everything": False}
    signature = "sha256=" + hmac.new(b"a secret", request.body, hashlib.sha256).hexdigest()
    assert ("X-Cacheinval-Signature", signature) in request.headers
    (everything,) = WEBHOOK.requests(Purge(everything=True))
    assert json.loads(everything.body) == {"tags": [], "soft": False, "everything": True}
    other = Webhook(
        "https://example.com/purge",
        method="PUT",
        headers={"AccessKey": TOKEN},
        body=lambda purge: {"CacheTag": purge.tags[0]},
        most=1,
    )
    requests = other.requests(Purge(("a", "b")))
    assert [(request.method, json.loads(request.body)) for request in requests] == [
        ("PUT", {"CacheTag": "a"}),
        ("PUT", {"CacheTag": "b"}),
    ]


def test_varnish_is_asked_by_header() -> None:
    """Hard, soft, everything, and everything by a tag of one's own."""
    varnish = Varnish("http://varnish:6081/", headers={"X-Password": TOKEN})
    (hard,) = varnish.requests(Purge(("a,b", "c")))
    assert (hard.method, hard.headers) == ("PURGE", (("xkey-purge", "a%2Cb c"), ("X-Password", TOKEN)))
    (soft,) = varnish.requests(Purge(("a",), soft=True))
    assert soft.headers[0] == ("xkey-softpurge", "a")
    (everything,) = varnish.requests(Purge(soft=True, everything=True))
    assert everything.headers[0] == ("xkey-everything", "1")
    (tagged,) = Varnish("http://varnish", all_tag="shop").requests(Purge(soft=True, everything=True))
    assert (tagged.headers[0], tagged.tags) == (("xkey-softpurge", "shop"), ())


def test_secrets_are_in_no_repr() -> None:
    """Of an adapter or of a request: tokens, passwords, the path and query of a URL."""
    others: list[CDN] = [
        Varnish("http://varnish", headers={"X-Password": TOKEN}),
        Webhook("https://e.com", headers={"k": TOKEN}),
    ]
    for cdn in [*ALL, *others]:
        shown = repr(cdn) + "".join(map(repr, cdn.requests(PURGE)))
        for secret in (TOKEN, "a secret", "of-the-url"):
            assert secret not in shown


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fastly("", TOKEN),
        lambda: Fastly("../other", TOKEN),
        lambda: Fastly("abc", ""),
        lambda: Fastly("abc", TOKEN + "\n"),
        lambda: Fastly("abc", TOKEN, api="api.fastly.com"),
        lambda: Fastly("abc", TOKEN, all_tag="two words"),
        lambda: Cloudflare("a/b", TOKEN),
        lambda: Cloudflare("abc", "Bearer " + TOKEN),
        lambda: Cloudflare("abc", TOKEN, most_tags=0),
        lambda: Cloudflare("abc", TOKEN, plan="gold"),  # type: ignore[arg-type]
        lambda: Varnish("varnish:6081"),
        lambda: Varnish("http://"),
        lambda: Varnish(f"http://user:{TOKEN}@varnish"),
        lambda: Varnish("http://varnish:99999"),
        lambda: Varnish("http://varnish", most_bytes=100),
        lambda: Varnish("http://varnish", headers={"a b": "c"}),
        lambda: Varnish("http://varnish", headers={"a": TOKEN + "\r\nb: c"}),
        lambda: Webhook("ftp://example.com"),
        lambda: Webhook("https://example.com/a b"),
        lambda: Webhook("https://example.com", method="PO ST"),
        lambda: Webhook("https://example.com", most=0),
        lambda: Webhook("https://example.com", most_bytes=10),
        lambda: Webhook("https://example.com", secret=""),
        lambda: Webhook("https://example.com", signature_header="a b"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(make: Any) -> None:
    """With an error that repeats no secret."""
    with pytest.raises(ConfigurationError) as error:
        make()
    assert TOKEN not in str(error.value)


def test_the_page_says_what_is_documented_and_what_is_assumed_of_each_vendor() -> None:
    """With the date on which it was read; the figures are those that the adapters keep to."""
    page = (Path(__file__).parents[3] / "docs" / "cdn.md").read_text()
    head, _, *rows = re.findall(r"^\|.*\|$", page[page.index("| vendor |") :], re.MULTILINE)
    assert re.search(r"\| documented, read on 20\d\d-\d\d-\d\d \| assumed \|", head)
    documented, assumed = ({row.split("|")[1].strip(): row.split("|")[at] for row in rows} for at in (2, 3))
    assert set(documented) == {"Fastly", "Cloudflare", "Varnish"}
    tags = tuple(map(str, range(1_000)))
    for vendor, cdn in (("Fastly", FASTLY), ("Cloudflare", CLOUDFLARE)):
        assert f" {len(cdn.requests(Purge(tags))[0].tags)} " in documented[vendor]
        assert len(cdn.key("x" * 1_024)) == 1_024 > len(cdn.key("x" * 1_025))
        assert "1,024" in assumed[vendor]
    assert "8,192" in assumed["Varnish"]
    assert (
        max(len(request.headers[0][1]) for request in VARNISH.requests(Purge(tuple(f"t:{'x' * 500}{n}" for n in tags))))
        < 8_192
    )
