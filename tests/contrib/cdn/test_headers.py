"""The fields of each CDN: names, separators, limits, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_cacheinval import ConfigurationError, Downstream, KeepFor
from fastapi_cacheinval.contrib.cdn import (
    CDNHeaders,
    Varnish,
    cloudflare_headers,
    fastly_headers,
    path_key,
    varnish_headers,
)

VARNISH = Varnish("http://127.0.0.1:1")
KEEP = KeepFor(60, 30, 600)
HOME = path_key("/")


def allowed(headers: CDNHeaders, *tags: str, sent: Any = ()) -> dict[bytes, list[bytes]]:
    """What is added to an answer of `/`."""
    lines = headers.allowing(sent, tags, "/", KEEP)
    assert isinstance(lines, list), lines
    found: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    ("headers", "name", "lifetime", "value"),
    [
        (fastly_headers(VARNISH), b"surrogate-key", b"surrogate-control", f"a b {HOME}"),
        (cloudflare_headers(VARNISH), b"cache-tag", b"cloudflare-cdn-cache-control", f"a,b,{HOME}"),
        (varnish_headers(VARNISH), b"xkey", b"surrogate-control", f"a b {HOME}"),
    ],
)
def test_each_has_fields_of_its_own(headers: CDNHeaders, name: bytes, lifetime: bytes, value: str) -> None:
    """Tags by the CDN's field and separator, the path's included; the lifetime with both windows."""
    assert isinstance(headers, Downstream)
    assert allowed(headers, "a", "b") == {
        lifetime: [b"max-age=60, stale-while-revalidate=30, stale-if-error=600"],
        name: [value.encode()],
    }


def test_windows_of_nothing_are_not_said() -> None:
    """A lifetime alone is a lifetime alone."""
    headers = varnish_headers(VARNISH)
    assert headers.allowing((), (), "/", KeepFor(5, 0, 0)) == [
        (b"surrogate-control", b"max-age=5"),
        (b"xkey", HOME.encode()),
    ]


def test_keys_are_the_adapters() -> None:
    """The same text stands in a purge: what the CDN cannot carry is encoded there and here."""
    assert allowed(varnish_headers(VARNISH), "a,b", "a,b")[b"xkey"] == [f"{VARNISH.key('a,b')} {HOME}".encode()]


def test_tag_of_everything_is_on_everything() -> None:
    """An adapter that purges a tag in place of all that the CDN has finds it on every response."""
    cdn = Varnish("http://127.0.0.1:1", all_tag="shop")
    assert allowed(varnish_headers(cdn), "a")[b"xkey"] == [f"shop a {HOME}".encode()]


def test_lines_that_varnish_takes() -> None:
    """No line over 7,000 bytes, no key cut, none lost."""
    tags = [f"tag-{n:04}-" + "x" * (n % 90) for n in range(250)]
    lines = allowed(varnish_headers(VARNISH), *tags)[b"xkey"]
    assert len(lines) > 1
    assert max(map(len, lines)) <= 7_000
    assert [key for line in lines for key in line.decode().split(" ")] == [*tags, HOME]


def test_who_may_not_count_age_is_told_what_is_left() -> None:
    """A hit of age 40 leaves 20 seconds of a minute: said to Cloudflare in so many words, to the others by `Age`."""
    sent = [(b"age", b"40")]
    told = {make: allowed(make(VARNISH), sent=sent) for make in (cloudflare_headers, fastly_headers)}
    assert told[cloudflare_headers][b"cloudflare-cdn-cache-control"][0].startswith(b"max-age=20,")
    assert told[fastly_headers][b"surrogate-control"][0].startswith(b"max-age=60,")
    late = allowed(cloudflare_headers(VARNISH), sent=[(b"age", b"61")])
    assert late[b"cloudflare-cdn-cache-control"][0].startswith(b"max-age=0,")


@pytest.mark.parametrize("headers", [fastly_headers(VARNISH), cloudflare_headers(VARNISH), varnish_headers(VARNISH)])
def test_more_than_fits_is_refused_whole(headers: CDNHeaders) -> None:
    """To the byte: what fits is said, one byte more is not said at all."""
    name = headers.tags.encode()
    # Keys of 99 bytes and a separator; the last one fills what is left of a line's end.
    tags = [f"{n:099}" for n in range(150)]
    room = headers.most_bytes - len(b" ".join(allowed(headers, *tags)[name])) - 1
    while room > 1_000:
        tags.append(f"{len(tags):099}")
        room -= 100
    while room > 101:
        tags.append("y" * 50 + f"{len(tags):049}")
        room -= 100
    if headers.line_bytes == headers.most_bytes:
        assert allowed(headers, *tags, "z" * room)
        assert headers.allowing((), (*tags, "z" * (room + 1)), "/", KEEP) == "tags"
    assert headers.allowing((), (*tags, "z" * 600, "q" * 600), "/", KEEP) == "tags"


def test_cloudflares_thousand_tags() -> None:
    """It reads no more than 1,000 of them, however short."""
    headers = cloudflare_headers(VARNISH)
    tags = [f"{n}" for n in range(999)]
    assert allowed(headers, *tags)
    assert headers.allowing((), (*tags, "more"), "/", KEEP) == "tags"


@pytest.mark.parametrize("value", [b"accept-language", b"Accept-Encoding, Origin", b"*"])
def test_cloudflare_keeps_no_variants(value: bytes) -> None:
    """It would hand one caller's variant to all: not kept, unless only the encoding varies."""
    assert cloudflare_headers(VARNISH).allowing([(b"vary", value)], (), "/", KEEP) == "vary"
    assert allowed(cloudflare_headers(VARNISH), sent=[(b"vary", b"Accept-Encoding")])
    assert allowed(varnish_headers(VARNISH), sent=[(b"vary", value)])


def test_fastly_is_told_in_the_word_that_it_heeds() -> None:
    """It takes its default lifetime unless it is told one, and keeps nothing that is private."""
    headers = fastly_headers(VARNISH)
    fields = headers.forbidding([(b"cache-control", b"no-cache")])
    assert (b"cache-control", b"private") in fields
    assert (b"surrogate-control", b"private, no-store, max-age=0") in fields
    already = [(b"cache-control", b"private, no-cache")]
    assert headers.forbidding(already)[:-1] == already


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        (fastly_headers(VARNISH), b"fastly-client-ip"),
        (cloudflare_headers(VARNISH), b"cf-ray"),
        (varnish_headers(VARNISH), b"x-varnish"),
    ],
)
def test_who_asks(headers: CDNHeaders, field: bytes) -> None:
    """Whoever comes with the field that the CDN sets on each request, and nobody else."""
    assert headers.asks([(b"host", b"x"), (field, b"any")])
    assert not headers.asks([(b"host", b"x")])


def test_who_knows_the_secret() -> None:
    """The value counts then, in one of the lines: a client's own line beside it changes nothing."""
    headers = varnish_headers(VARNISH, asked_by="x-from", secret="s3cret")
    assert headers.asks([(b"x-from", b"s3cret")])
    assert headers.asks([(b"x-from", b"guess"), (b"x-from", b"s3cret")])
    assert not headers.asks([(b"x-from", b"guess")])
    assert not headers.asks([(b"x-from", "s3crét".encode())])
    assert not headers.asks([])
    assert "s3cret" not in repr(headers)


def test_everybody_is_told_where_nobody_is_meant() -> None:
    """`asked_by=None` is for an app that only the CDN can reach."""
    assert varnish_headers(VARNISH, asked_by=None).asks([])


class Careless:
    """An adapter whose keys no field can carry."""

    rate = VARNISH.rate
    requests = VARNISH.requests
    judge = VARNISH.judge

    def key(self, tag: str) -> str:
        return f"{tag} {tag}"


def test_key_that_would_be_two() -> None:
    """A key with the separator in it is said by nobody: its purge would miss it."""
    assert varnish_headers(Careless()).allowing((), ("a",), "/", KEEP) == "tags"


@pytest.mark.parametrize(
    "given",
    [
        {"cdn": "varnish"},
        {"tags": "X-Key"},
        {"tags": ""},
        {"lifetime": "a b"},
        {"asked_by": "x:y"},
        {"separator": ";"},
        {"secret": ""},
        {"secret": "größe"},
        {"secret": "s", "asked_by": None},
        {"line_bytes": 0},
        {"line_bytes": 20_000},
    ],
)
def test_bad_configuration_is_refused(given: dict[str, Any]) -> None:
    """It is told when it is made."""
    named = {"cdn": VARNISH, "tags": "edge-cache-tag", "lifetime": "edge-control", "asked_by": "x-akamai", **given}
    with pytest.raises(ConfigurationError):
        CDNHeaders(**named)
