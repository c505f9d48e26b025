"""The head of a plain request, read from bytes: whatever is taken, the server's own parser reads in the same way."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.request_head import parse_request_head

PLAIN = b"GET /items/1?a=1 HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n"


class Parsed:
    """What httptools calls back."""

    def __init__(self, data: bytes) -> None:
        self.url, self.headers, self.complete = b"", list[tuple[bytes, bytes]](), 0
        self.parser: Any = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete += 1


def test_a_plain_request_is_taken_apart() -> None:
    """Method, path, query, host and length."""
    head = parse_request_head(PLAIN + b"GET /next")
    assert head is not None
    assert (head.method, head.path, head.query, head.host) == ("GET", "/items/1", b"a=1", b"test")
    assert head.size == len(PLAIN)
    assert head.headers == [(b"host", b"test"), (b"accept", b"*/*")]
    assert (head.conditions, head.forwarded, head.origin) == ((), (), False)


def test_the_fields_that_matter_are_found_in_any_case_and_order() -> None:
    """Conditions and what proxies say keep their order."""
    head = parse_request_head(
        b'HEAD / HTTP/1.1\r\nIF-NONE-MATCH: "a"\r\nx-forwarded-for:1\r\nhOsT:\t test\r\nX-Forwarded-Proto: https\r\n'
        b'If-None-Match: W/"b"\r\nOrigin: null\r\nX-Host: no\r\n\r\n'
    )
    assert head is not None
    assert head.conditions == ((b"if-none-match", b'"a"'), (b"if-none-match", b'W/"b"'))
    assert head.forwarded == ((b"x-forwarded-for", b"1"), (b"x-forwarded-proto", b"https"))
    assert (head.method, head.path, head.host, head.origin) == ("HEAD", "/", b"test", True)


LEFT = [
    b"",
    PLAIN.replace(b"*/*", b"*/* "),
    PLAIN.replace(b"*/*", b"*/*\t"),
    PLAIN.replace(b"*/*", b" "),
    PLAIN.replace(b"Host: test", b"Host: test "),
    PLAIN[:-1],
    PLAIN.replace(b"GET", b"POST"),
    PLAIN.replace(b"GET", b"get"),
    PLAIN.replace(b"1.1", b"1.0"),
    PLAIN.replace(b"/items", b"//items"),
    PLAIN.replace(b"/items", b"http://test/items"),
    PLAIN.replace(b"items", b"%69tems"),
    PLAIN.replace(b"a=1", b"a=1#f"),
    PLAIN.replace(b"a=1", b'a="1"'),
    PLAIN.replace(b"items", b"it\xffms"),
    PLAIN.replace(b"\r\n", b"\n"),
    PLAIN.replace(b"Host: test\r\n", b""),
    PLAIN.replace(b"Host: test", b"Host: "),
    PLAIN.replace(b"Host: test", b"Host : test"),
    PLAIN.replace(b"Host: test", b"Host: test\r\nHost: test"),
    PLAIN.replace(b"Accept: */*", b"Accept: a\r\n b"),
    PLAIN.replace(b"Accept: */*", b"Accept: a\x00b"),
    PLAIN.replace(b"Accept: */*", b": a"),
    PLAIN.replace(b"Accept: */*", b"Accept: a\rb"),
    *(
        PLAIN.replace(b"Accept: */*", line)
        for line in (
            b"Authorization: Basic eDp5",
            b"Connection: close",
            b"Connection: keep-alive, close",
            b"Connection: keep-alive\r\nConnection: close",
            b"Proxy-Connection: close",
            b"Content-Length: 0",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Upgrade: h2c",
            b"Cacheinval-Token: 1.a.2",
        )
    ),
]


@pytest.mark.parametrize("data", LEFT)
def test_anything_else_is_left_to_the_server(data: bytes) -> None:
    """What is incomplete, malformed, or asks for more than a page."""
    assert parse_request_head(data) is None


_NAMES = st.sampled_from([b"Host", b"Accept", b"X-A", b"Connection", b"If-None-Match", b"Cookie", b"Origin", b"TE"])
_VALUES = st.one_of(
    st.sampled_from(
        [b"test", b"keep-alive", b"", b" a ", b"\ta\t", b"a\tb", b"\x80\xff", b"a\x7fb", b"a\r\n b", b'"x"']
    ),
    st.binary(max_size=6),
)
_TARGETS = st.one_of(
    st.sampled_from([b"/", b"/a/b", b"/a//b", b"//a", b"/a?b", b"/a?", b"/a??b", b"/a?b?c", b"/a;b", b"/a%20", b"*"]),
    st.binary(min_size=1, max_size=5).map(lambda tail: b"/" + tail),
)
_LINES = st.lists(st.tuples(_NAMES, st.sampled_from([b":", b": ", b" :", b":  "]), _VALUES).map(b"".join), max_size=5)


@given(
    method=st.sampled_from([b"GET", b"GET", b"HEAD", b"PUT", b"get"]),
    target=_TARGETS,
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1 "]),
    lines=_LINES,
    end=st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]),
    rest=st.sampled_from([b"", b"", b"GET / HTTP/1.1\r\n"]),
)
def test_what_is_taken_is_what_the_servers_parser_reads(
    method: bytes, target: bytes, version: bytes, lines: list[bytes], end: bytes, rest: bytes
) -> None:
    """The same path, query and fields; a complete message without a body that keeps its connection."""
    data = end.join([b"%b %b %b" % (method, target, version), b"Host: test", *lines, b"", b""]) + rest
    head = parse_request_head(data)
    if head is None:
        return
    parsed = Parsed(data[: head.size])
    url = httptools.parse_url(parsed.url)
    assert (url.path, url.query or b"") == (head.path.encode(), head.query)
    assert parsed.headers == head.headers
    assert parsed.complete == 1
    assert parsed.parser.get_method() == head.method.encode()
    assert parsed.parser.should_keep_alive()
    assert not parsed.parser.should_upgrade()
    assert [value for name, value in parsed.headers if name == b"host"] == [head.host]


def test_a_long_head_takes_no_longer_than_its_length() -> None:
    """Neither a megabyte of one field nor ten thousand fields has it look at a byte many times."""
    assert parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000) is None
    assert parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 10_000) is None
