"""One purge as the lines it is written in, each small enough to be written, sent and applied within milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi_cacheinval.core.log_types import LogEntry, Missed, Reply
from fastapi_cacheinval.core.tag_limits import size_of

__all__ = ["LINE_TAGS", "LINE_TAG_BYTES", "in_pieces", "in_slices"]

LINE_TAGS = 1_000
"""Tags of one line."""

LINE_TAG_BYTES = 65_536
"""Bytes of them all."""


def in_pieces(
    tags: tuple[str, ...], most_tags: int = LINE_TAGS, most_bytes: int = LINE_TAG_BYTES
) -> Iterator[tuple[str, ...]]:
    """The tags in their order, in tuples within the limits; one tag is one whatever its size, and none are one too."""
    begin = 0
    while True:
        end = min(begin + most_tags, len(tags))
        while end > begin + 1 and size_of(tags[begin:end]) > most_bytes:
            end = (begin + end) // 2
        yield tags[begin:end]
        if end >= len(tags):
            return
        begin = end


def in_slices(reply: Reply, most_tags: int = LINE_TAGS) -> Iterator[Reply]:
    """A reply in parts that are applied one after the other, and then come to the same: other work fits in between."""
    if not isinstance(reply, Missed):
        yield reply
        return
    part: list[LogEntry] = []
    count = 0
    for line in reply.lines:
        # A line without tags takes time too.
        size = len(line.tags) + 1
        if part and count + size > most_tags:
            yield Missed(reply.term, tuple(part), more=True)
            part, count = [], 0
        part.append(line)
        count += size
    yield Missed(reply.term, tuple(part), more=reply.more)
