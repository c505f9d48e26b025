"""Why a URL is a hit or a miss now: `cache.explain`, as the page shows it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.errors import CacheinvalError, CacheNotRunning
from fastapi_cacheinval.inspector.events import event_told
from fastapi_cacheinval.inspector.plain import Told, plain

__all__ = ["Explaining"]

_LONGEST_URL = 8192
_MOST_TAGS = 50


class Explaining:
    """Answers for one cache; nobody is asked, and nothing is counted."""

    def __init__(self, cache: HTTPCache) -> None:
        self._cache = cache

    async def show(self, request: Request) -> Response:
        """`GET api/explain?url=`: a path is one below the app that the inspector is mounted in."""
        url = request.query_params.get("url", "").strip()
        if not 0 < len(url) <= _LONGEST_URL:
            return Told({"error": f"url is a path or a URL of at most {_LONGEST_URL} characters."}, 400)
        if not url.startswith("/") and "://" not in url:
            url = f"/{url}"
        try:
            found = await self._cache.explain(url, base_url=_base_of(request))
        except CacheNotRunning as error:
            return Told({"error": str(error)}, 503)
        except CacheinvalError as error:
            return Told({"error": str(error)}, 422)
        told: dict[str, Any] = plain(found)
        last = found.last_purge
        return Told({**_bounded(told), "last_purge": None if last is None else event_told(last)})


def _base_of(request: Request) -> str:
    """Scheme, host and root path as the app sees them, which is how the cache tells pages apart."""
    root = str(request.scope.get("app_root_path", "")).rstrip("/")
    return f"{request.url.scheme}://{request.headers.get('host') or 'localhost'}{root}"


def _bounded(told: dict[str, Any]) -> dict[str, Any]:
    """The first tags alone, and how many there are."""
    for each in (told, *told["stored"]):
        each["more"] = max(0, len(each["tags"]) - _MOST_TAGS)
        each["tags"] = each["tags"][:_MOST_TAGS]
    return told
