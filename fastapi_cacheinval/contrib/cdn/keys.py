"""How tags and paths are named to a CDN: once, for the headers of responses and for purges alike."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote

from fastapi_cacheinval import Receipt
from fastapi_cacheinval import path_key as key_of_path
from fastapi_cacheinval.contrib.cdn.requests import Purge

__all__ = ["batches", "bounded_key", "path_key", "purge_of"]

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PLAIN = re.compile(r"[\x21-\x7e]+\Z")


def path_key(path: str) -> str:
    """The tag that stands for a path at a CDN: `path:` and 32 hexadecimal digits, the same in any process.

    For the path of a response, and for each of `receipt.paths`: as the handler sees it, without host, query and root
    path.
    """
    return key_of_path(path)


def purge_of(receipt: Receipt) -> Purge:
    """What a purge of the cache is at a CDN: its tags, and its paths as tags."""
    if receipt.everything:
        return Purge(soft=receipt.soft, everything=True)
    return Purge((*receipt.tags, *map(path_key, receipt.paths)), receipt.soft)


def bounded_key(tag: str, *, longest: int, forbidden: str = "") -> str:
    """A tag without the characters that a CDN forbids, which are percent-encoded; a digest where it is too long.

    Two tags may become one key: then both are purged with either, which is never wrong.
    """
    if 0 < len(tag) <= longest and _PLAIN.match(tag) and not any(char in tag for char in forbidden):
        return tag
    key = quote(tag, safe="".join(char for char in _PRINTABLE if char not in forbidden), errors="surrogatepass")
    if 0 < len(key) <= longest:
        return key
    return "sha256:" + hashlib.sha256(tag.encode("utf-8", "surrogatepass")).hexdigest()


def batches(
    tags: Iterable[str], key: Callable[[str], str], *, most: int, most_bytes: int, between: int = 1
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Tags in groups, each with its distinct keys: at most `most`, and `most_bytes` with `between` bytes between two.

    Each tag is in one group. A key that is longer than `most_bytes` by itself stands alone.
    """
    groups: list[tuple[list[str], dict[str, None]]] = []
    left = -1
    for tag in dict.fromkeys(tags):
        name = key(tag)
        if groups and name in groups[-1][1]:
            groups[-1][0].append(tag)
            continue
        if not groups or len(groups[-1][1]) >= most or len(name) + between > left:
            groups.append(([], {}))
            left = most_bytes + between
        left -= len(name) + between
        groups[-1][0].append(tag)
        groups[-1][1][name] = None
    return [(tuple(named), tuple(names)) for named, names in groups]
