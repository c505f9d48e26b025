"""The last purge of some tags, as the log tells of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.bus.entries import encode_tags, lines_of
from fastapi_cacheinval.cli.link import Link
from fastapi_cacheinval.connections.client import Client
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.tags import ALL, path_of, path_tag
from fastapi_cacheinval.engine.tiers import key_prefix

__all__ = ["LastPurge", "last_purge"]


@dataclass(frozen=True, slots=True)
class LastPurge:
    """Which tag was purged last, by which line; `line` is None where the log keeps that no more."""

    tag: str
    soft: bool
    seq: int
    line: LogEntry | None

    @property
    def shown(self) -> str:
        """The tag, or the path that it stands for, or everything."""
        if self.tag == ALL:
            return "everything"
        path = path_of(self.tag)
        return self.tag if path is None else f"the path {path}"


async def last_purge(log: Link | Client, namespace: str, tags: Iterable[str], paths: Iterable[str]) -> LastPurge | None:
    """The newest purge of any of the tags or paths, or of everything; None where none is remembered.

    Raises what `log` raises of a command.
    """
    keys = log_keys(key_prefix(namespace, ""))
    names = tuple(dict.fromkeys((*tags, *map(path_tag, paths), ALL)))
    members = [kind + tag for tag in encode_tags(names) for kind in (b"h", b"s")]
    scores: list[Any] = await log.command("ZMSCORE", keys.tags, *members)
    found = [
        (int(float(score)), names[place // 2], bool(place % 2))
        for place, score in enumerate(scores)
        if score is not None
    ]
    if not found:
        return None
    seq, tag, soft = max(found)
    lines = lines_of(await log.command("XRANGE", keys.log, f"{seq}-0", f"{seq}-0"))
    return LastPurge(tag, soft, seq, lines[0] if lines else None)
