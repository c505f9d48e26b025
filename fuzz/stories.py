"""Random stories: what a client sends on one connection, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

__all__ = ["FORGET", "Sent", "Story", "closing", "story"]

_METHODS = [*["GET"] * 24, "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "TRACE", "QUERY", "get", "FOO", ""]
_PATHS = [
    "/items/1", "/items/1", "/items/2", "/items/042", "/items/+1", "/items/1/", "/items/x", "/items/99999999",
    "/text/a", "/text/a%2Fb", "/text/a/b", "/text/%41", "/text/A", "/text/%C3%A9", "/text/%ff", "/text/", "/text/..",
    "/big/3000", "/big/0", "/big/40000", "/big/-1", "/old", "/plain", "/echo", "/nothing", "//items/1", "/./items/1",
    "/items/1;a=b", "*", "http://test/items/1", "/%00", "/items/1%00", "/items/%31",
]  # fmt: skip
_OFTEN = ["/items/1", "/items/2", "/items/1?q=1", "/text/a", "/big/3000", "/old"]
_QUERIES = [
    *[""] * 8, "?q=1", "?q=2", "?q=1&q=2", "?many=1&many=2", "?many=2&many=1", "?utm=1", "?q=%31", "?q=a%26q=b",
    "?q=%ff", "?", "??", "?q=1;many=2", "?q=" + "x" * 3000, "?q=1&utm=2", "?%71=1",
]  # fmt: skip
_FIELDS = [
    ("Accept", "*/*"), ("Accept-Encoding", "gzip"), ("Accept-Encoding", "GZIP"), ("Accept-Encoding", "gzip;q=0"),
    ("Accept-Encoding", "br, gzip"), ("Accept-Encoding", "identity"), ("accept-encoding", " gzip , identity;q=0"),
    ("Accept-Language", "en"), ("Accept-Language", "de"), ("Accept-Language", "de, en"), ("Accept-Language", ""),
    ("ACCEPT-LANGUAGE", "en"), ("Authorization", "Bearer a"), ("Authorization", "Bearer b"), ("Cookie", "a=1"),
    ("If-None-Match", '"x"'), ("If-None-Match", "*"), ("If-None-Match", 'W/"'),
    ("If-Modified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"), ("If-Match", '"x"'), ("If-Range", '"x"'),
    ("Range", "bytes=0-0"), ("Range", "bytes=999-"), ("Range", "bytes=-5"), ("Range", "items=1"), ("Range", "bytes=x"),
    ("Cache-Control", "no-cache"), ("Cache-Control", "max-age=0"), ("Cache-Control", "no-store"),
    ("Pragma", "no-cache"),
    ("Cache-Control", "min-fresh=1"), ("Cache-Control", "max-stale"), ("Origin", "http://other"), ("Expect", "x"),
    ("X-Forwarded-Host", "evil"), ("X-Forwarded-Prefix", "/x"), ("X-HTTP-Method-Override", "DELETE"),
    ("X-Other", "y" * 2000), ("Surrogate-Key", "items"), ("Cacheinval-Token", "1.a.999"), ("Vary", "*"),
    ("Connection", "keep-alive"), ("Content-Type", "application/json"), ("TE", "trailers"), ("Upgrade", "h2c"),
    ("Bad Name", "1"), ("", "empty"), ("X-Bytes", "\xe9\xff"), ("X-Tab", "a\tb"), ("X-Fold", "a\r\n b"),
]  # fmt: skip
_HOSTS = [*["test"] * 10, "TEST", "test:80", "other", "", "te st", "[::1]"]
_BODIES = ['"a"', '"b"', '{"a": 1}', "", "[", '"' + "z" * 5000 + '"']
_BREAKS = ["\r\n"] * 30 + ["\n", "\r", "\r\n\r\n"]
_LONGEST = 5
_PLAIN = 0.7
_CAREFUL = 0.9
# Servers differ in what they take.
_DOUBTFUL = {
    "bad name",
    "",
    "expect",
    "upgrade",
    "te",
    "connection",
    "x-fold",
    "x-bytes",
    ("Host", "te st"),
    ("Host", ""),
}
_SOUND = [pair for pair in _FIELDS if pair[0].lower() not in _DOUBTFUL]


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: what it asks, and its bytes; `broken` where a server may close the connection for them."""

    method: str
    target: str
    data: bytes
    conditional: bool
    ranged: bool
    broken: bool


@dataclass(frozen=True, slots=True)
class Story:
    """Requests on one connection, the last of which closes it, and how their bytes are cut into packets."""

    requests: tuple[Sent, ...]
    packets: tuple[bytes, ...]

    @property
    def broken(self) -> bool:
        """Whether some request may end the connection, with what came before it under way."""
        return any(request.broken for request in self.requests)


def closing(method: str, target: str) -> bytes:
    """A plain request that closes its connection."""
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()


FORGET = Story((), (closing("DELETE", "/items"),))
"""Has a server forget all that was written."""


def _request(rng: Random, *, last: bool, careful: bool) -> Sent:
    method = "GET" if last else rng.choice(_METHODS[:-3] if careful else _METHODS)
    target = "/plain" if last else rng.choice(_PATHS) + rng.choice(_QUERIES)
    fields = (
        [] if last else [rng.choice(_SOUND if careful else _FIELDS) for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 8]))]
    )
    if not last and rng.random() < _PLAIN:
        # What is asked again is a hit.
        target, fields = rng.choice(_OFTEN), fields[:1]
    hosts = ["test"] if last or careful else [rng.choice(_HOSTS) for _ in range(rng.choice([1] * 20 + [0, 2]))]
    named = [("Host", host) for host in hosts]
    lines = named + fields
    body, framing = "", "none"
    if method in ("PUT", "POST") or rng.random() < 0.03:
        body = "" if last else rng.choice(_BODIES)
        lines.append(("Content-Type", "application/json"))
        framing, fields_of_it = _framed(rng, body, careful=careful)
        lines += fields_of_it
    if not last:
        rng.shuffle(lines)
    else:
        lines.append(("Connection", "close"))
    end = "\r\n" if last or careful else rng.choice(_BREAKS)
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}{end}" for name, value in lines) + "\r\n"
    chunked = any(value == "chunked" for _, value in lines)
    data = head.encode("latin-1") + (_chunks(body) if chunked else body.encode())
    names = {name.lower() for name, _ in fields}
    return Sent(
        method=method,
        target=target,
        data=data,
        conditional=any(name.startswith("if-") for name in names),
        ranged="range" in names,
        broken=(
            not method.isupper()
            or end != "\r\n"
            or framing == "wrong"
            or len(hosts) != 1
            or any(name.lower() in _DOUBTFUL or (name, value) in _DOUBTFUL for name, value in [*fields, *named])
        ),
    )


def _framed(rng: Random, body: str, *, careful: bool) -> tuple[str, list[tuple[str, str]]]:
    """How the body's length is told, now and then wrongly."""
    length = ("Content-Length", str(len(body)))
    chunked = ("Transfer-Encoding", "chunked")
    wrong = [[("Content-Length", str(len(body) + 1))], [length, length], [length, chunked], []]
    if not careful and rng.random() < 0.2:
        return "wrong", rng.choice(wrong)
    return "right", rng.choice([[length], [length], [length], [chunked]])


def _chunks(body: str) -> bytes:
    data = body.encode()
    return (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n"


def _cut(rng: Random, data: bytes) -> tuple[bytes, ...]:
    places = sorted(rng.randrange(len(data)) for _ in range(rng.choice([0, 0, 0, 1, 2, 5])))
    edges = [0, *places, len(data)]
    return tuple(data[a:b] for a, b in pairwise(edges) if a < b)


def story(rng: Random) -> Story:
    """One connection's requests, one behind the other."""
    count = rng.randint(1, _LONGEST)
    careful = rng.random() < _CAREFUL
    requests = tuple(_request(rng, last=number == count, careful=careful) for number in range(count + 1))
    return Story(requests, _cut(rng, b"".join(request.data for request in requests)))
