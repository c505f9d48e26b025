"""Answering a `Range` from what is stored (RFC 9110 section 14, RFC 9111 sections 3.3 and 3.4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.grammar.dates import parse_date
from fastapi_cacheinval.grammar.entity_tags import parse_etag, strong_match
from fastapi_cacheinval.grammar.fields import RawHeaders, first, is_coded, values, without
from fastapi_cacheinval.grammar.ranges import ContentRange, parse_content_range, resolve, serialise_content_range

__all__ = ["Cut", "cut", "holds", "part_of"]

_OF_THE_WHOLE = frozenset({b"content-length", b"content-range"})


@dataclass(frozen=True, slots=True)
class Cut:
    """The answer to a request for ranges: a 206 with one or several, or a 416."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes


def _if_range_holds(request: RawHeaders, stored: SharedResponse, wall: float) -> bool:
    """Whether `If-Range`, if there is one, names the very bytes that are stored (RFC 9110 section 13.1.5)."""
    lines = values(request, b"if-range")
    if not lines:
        return True
    wanted = parse_etag(lines[0])
    if wanted is not None:
        own = None if stored.etag is None else parse_etag(stored.etag)
        return len(lines) == 1 and own is not None and strong_match(own, wanted)
    moment = parse_date(lines[0], wall)
    return len(lines) == 1 and moment is not None and moment == stored.last_modified


def cut(asked: Asked, stored: SharedResponse, fields: list[tuple[bytes, bytes]], wall: float) -> Cut | None:
    """The ranges asked for, of a whole 200 or of a part that holds them; None where the whole is the answer.

    It is where the whole is coded, and is sent all the same, such as in place of an error: see `is_for_the_app_to_cut`.
    """
    if asked.method != "GET" or asked.ranges is None or not _if_range_holds(asked.headers, stored, wall):
        return None
    if stored.part is not None:
        return _cut_part(asked, stored, stored.part, fields)
    if stored.status != 200 or is_coded(stored.headers):
        return None
    length = len(stored.body)
    ranges = resolve(asked.ranges, length)
    kept = without(fields, _OF_THE_WHOLE)
    if not ranges:
        kept = without(kept, (b"content-type", b"content-encoding", b"content-language"))
        unsatisfied = [(b"content-range", b"bytes */%d" % length), (b"content-length", b"0")]
        return Cut(416, [*kept, *unsatisfied], b"")
    if sum(last - start + 1 for start, last in ranges) > length:
        return None
    if len(ranges) > 1:
        return _several(ranges, kept, stored.body)
    start, last = ranges[0]
    return _one(ContentRange(start, last, length), kept, stored.body[start : last + 1])


def _one(part: ContentRange, kept: list[tuple[bytes, bytes]], body: bytes) -> Cut:
    described = [(b"content-range", serialise_content_range(part)), (b"content-length", b"%d" % len(body))]
    return Cut(206, [*kept, *described], body)


def _several(ranges: list[tuple[int, int]], kept: list[tuple[bytes, bytes]], body: bytes) -> Cut:
    content_type = first(kept, b"content-type")
    # Made from the bytes, so that nobody can have put it into them.
    boundary = hashlib.blake2b(body, digest_size=16, person=b"multipart").hexdigest().encode()
    pieces: list[bytes] = []
    for start, last in ranges:
        described = [b"Content-Range: " + serialise_content_range(ContentRange(start, last, len(body)))]
        if content_type is not None:
            described.insert(0, b"Content-Type: " + content_type)
        pieces.append(b"--" + boundary + b"\r\n" + b"\r\n".join(described) + b"\r\n\r\n" + body[start : last + 1])
    whole = b"\r\n".join(pieces) + b"\r\n--" + boundary + b"--\r\n"
    fields = without(kept, (b"content-type",))
    fields.append((b"content-type", b"multipart/byteranges; boundary=" + boundary))
    return Cut(206, [*fields, (b"content-length", b"%d" % len(whole))], whole)


def part_of(headers: RawHeaders, body: bytes) -> ContentRange | None:
    """The range that the body of a 206 is; None for several ranges, and where the body is longer than it says."""
    lines = values(headers, b"content-range")
    said = parse_content_range(lines[0]) if len(lines) == 1 else None
    if said is None or not 0 < len(body) <= said.last - said.first + 1:
        return None
    return said


def _wanted_of(asked: Asked, part: ContentRange) -> tuple[int, int] | None:
    """The one range asked for, of a representation that a part is of; None where it is not known or not one."""
    if asked.ranges is None or len(asked.ranges) != 1 or part.complete is None:
        return None
    ranges = resolve(asked.ranges, part.complete)
    return ranges[0] if ranges else None


def holds(asked: Asked, stored: SharedResponse, wall: float) -> bool:
    """Whether a stored part has all that is asked for, which is the whole where `If-Range` names other bytes."""
    if stored.part is None:
        return True
    if not _if_range_holds(asked.headers, stored, wall):
        return False
    wanted = _wanted_of(asked, stored.part)
    return wanted is not None and stored.part.first <= wanted[0] and wanted[1] <= stored.part.last


def _cut_part(
    asked: Asked, stored: SharedResponse, part: ContentRange, fields: list[tuple[bytes, bytes]]
) -> Cut | None:
    wanted = _wanted_of(asked, part)
    if wanted is None:
        return None
    start, last = wanted
    # By the origin's word from either end, which is one unless its body is shorter than it says.
    if asked.ranges is not None and asked.ranges[0].first is None:
        body = stored.body[-(last - start + 1) :]
    else:
        body = stored.body[start - part.first : last - part.first + 1]
    return _one(ContentRange(start, last, part.complete), without(fields, _OF_THE_WHOLE), body)
