"""What the page may change: it purges, and nothing else."""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.errors import CacheinvalError, PurgeNotDelivered, ReplicasUnknown
from fastapi_cacheinval.inspector.events import purge_told
from fastapi_cacheinval.inspector.origin import why_foreign
from fastapi_cacheinval.inspector.plain import Told

__all__ = ["Changes"]

_MOST_BYTES = 65_536
_MOST_TAGS = 1_000
_WAYS = ("tags", "url", "everything")


class Changes:
    """Purges one cache for requests that carry the token of the page."""

    def __init__(self, cache: HTTPCache) -> None:
        self._cache = cache

    async def purge(self, request: Request) -> Response:
        """`POST api/purge` with one of `tags`, `url` and `everything`, and `soft`; waits for every replica."""
        if why := why_foreign(request.headers):
            return Told({"error": f"Refused: {why}."}, 403)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Told({"error": "A purge is sent as application/json."}, 415)
        text = await _bounded_body(request)
        if text is None:
            return Told({"error": f"A purge has at most {_MOST_BYTES} bytes."}, 413)
        wanted = _wanted(text)
        if isinstance(wanted, str):
            return Told({"error": wanted}, 422)
        try:
            receipt = await self._purged(wanted)
        except PurgeNotDelivered as error:
            if not error.queued:
                return Told({"error": str(error)}, 503)
            return Told({"became": "queued", "why": error.reason}, 202)
        except ReplicasUnknown as error:
            told = {"became": "unconfirmed", "why": error.reason, "term": error.term, "seq": error.seq}
            return Told(told)
        except CacheinvalError as error:
            return Told({"error": str(error)}, 422)
        told = {"became": "done", **purge_told(receipt), "replicas": receipt.replicas, "seconds": receipt.seconds}
        return Told(told)

    async def _purged(self, wanted: dict[str, Any]) -> Receipt:
        soft = wanted["soft"]
        if wanted.get("everything"):
            return await self._cache.clear(soft=soft, wait="all")
        if "url" in wanted:
            return await self._cache.invalidate_url(wanted["url"], soft=soft, wait="all")
        return await self._cache.invalidate(*wanted["tags"], soft=soft, wait="all")


def _wanted(text: bytes) -> dict[str, Any] | str:
    """A purge as it was asked for, or what is wrong with it."""
    try:
        given: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "The body is not JSON."
    if not isinstance(given, dict):
        return "A purge is an object."
    wanted = cast("dict[str, Any]", given)
    unknown = wanted.keys() - {*_WAYS, "soft"}
    ways = [way for way in _WAYS if wanted.get(way) not in (None, False)]
    if unknown or len(ways) != 1:
        return "A purge names one of tags, url and everything, and may be soft."
    soft, way = wanted.get("soft", False), ways[0]
    if not isinstance(soft, bool):
        return "soft is true or false."
    value = wanted[way]
    if way == "everything" and value is not True:
        return "everything is true or false."
    if way == "url" and not (isinstance(value, str) and value.strip()):
        return "url is a path or a URL."
    if way == "tags" and not _are_tags(value):
        return f"tags is a list of 1 to {_MOST_TAGS} texts."
    return {way: value, "soft": soft}


def _are_tags(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(cast("list[object]", value)) <= _MOST_TAGS
        and all(isinstance(tag, str) and tag for tag in cast("list[object]", value))
    )


async def _bounded_body(request: Request) -> bytes | None:
    """The body, read no further than allowed; None for a larger one."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)
