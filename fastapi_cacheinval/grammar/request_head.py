"""The head of a plain GET or HEAD request, read from the bytes of a connection (RFC 9112).

It takes less than the RFC allows. What it takes, every parser reads in the same way; all else is None, and goes to the
server's own parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["RequestHead", "parse_request_head"]

# Each place has one way on, so a head that does not match is given up after one pass. Groups are not possessive: in
# Python 3.11.2, which Debian 12 has, possessive groups match nothing.
_HEAD: Final = re.compile(
    rb"(GET|HEAD) (/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@][A-Za-z0-9\-._~!$&'()*+,;=:@/]*+)?)"
    rb"(?:\?([A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*+))? HTTP/1\.1\r"
    rb"((?:\n[A-Za-z0-9!#$%&'*+\-.^_`|~]+:[\t\x20-\x7e\x80-\xff]*\r)+)\n\r\n"
)
# The fields that matter, in lower case; all others say nothing to a server or a cache here.
_FIELDS: Final = re.compile(
    rb"\n(host|connection|if-none-match|if-modified-since|x-forwarded-[a-z]+"
    rb"|authorization|content-length|transfer-encoding|expect|upgrade|proxy-connection|cacheinval-token|origin)"
    rb":[\t ]*+([^\r]*+)"
)


@dataclass(slots=True, eq=False)
class RequestHead:
    """A request that says nothing unusual.

    `path` has no escapes in it, `query` is as it was sent. `conditions` are its `If-None-Match` and `If-Modified-Since`
    fields, `forwarded` its `X-Forwarded-*` fields, both in order with names in lower case. `origin` says whether
    it has an `Origin`, `size` is its bytes, `lines` are its field lines.
    """

    method: str
    path: str
    query: bytes
    host: bytes
    conditions: tuple[tuple[bytes, bytes], ...]
    forwarded: tuple[tuple[bytes, bytes], ...]
    origin: bool
    size: int
    lines: bytes
    _headers: list[tuple[bytes, bytes]] | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All fields in order, names in lower case; taken apart when they are first asked for."""
        if self._headers is None:
            parts = [line.partition(b":") for line in self.lines[1:-1].split(b"\r\n")]
            self._headers = [(name.lower(), value.lstrip(b"\t ")) for name, _, value in parts]
        return self._headers


def parse_request_head(data: bytes) -> RequestHead | None:
    """The head at the beginning of `data`, None where it is incomplete or is anything but plain; never raises."""
    found = _HEAD.match(data)
    if found is None:
        return None
    method, path, query, fields = found.groups()
    if b" \r" in fields or b"\t\r" in fields:
        # A field's value has no white space at its end (RFC 9112 section 5.1), and not every parser takes it off.
        return None
    lower = fields.lower()
    host: bytes | None = None
    conditions: tuple[tuple[bytes, bytes], ...] = ()
    forwarded: tuple[tuple[bytes, bytes], ...] = ()
    origin = False
    for line in _FIELDS.finditer(lower):
        name = line[1]
        value = fields[line.start(2) : line.end(2)]
        if name == b"host" and host is None and value:
            host = value
        elif name == b"connection" and value.lower() == b"keep-alive":
            pass
        elif name[:3] == b"if-":
            conditions = (*conditions, (name, value))
        elif name[:2] == b"x-":
            forwarded = (*forwarded, (name, value))
        elif name == b"origin":
            origin = True
        else:
            return None
    if host is None:
        return None
    return RequestHead(
        "GET" if method == b"GET" else "HEAD",
        path.decode("ascii"),
        query or b"",
        host,
        conditions,
        forwarded,
        origin,
        found.end(),
        fields,
    )
