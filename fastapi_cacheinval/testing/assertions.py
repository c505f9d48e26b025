"""Assertions on how a response came, which tell the whole story when they fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from fastapi_cacheinval.grammar.cache_status import CacheStatus, parse_cache_status

__all__ = ["assert_hit", "assert_miss", "assert_stale", "made_by_the_app"]


class _Response(Protocol):
    """What httpx, httpx2 and Starlette's test client give."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


def _status(response: _Response) -> CacheStatus | None:
    return _own(response.headers.get("cache-status", "").encode("latin-1", "replace"))


def _own(field: bytes) -> CacheStatus | None:
    """What a `Cache-Status` says of this package, by the one next to the client; None where it says nothing."""
    return next((member for member in reversed(parse_cache_status(field)) if member.cache == "cacheinval"), None)


def made_by_the_app(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer says that the app has made it for this request."""
    status = _own(b", ".join(value for name, value in headers if name.lower() == b"cache-status"))
    return status is not None and status.fwd is not None and not status.collapsed


def _story(response: _Response, wanted: str, status: CacheStatus | None) -> str:
    shown = ("cache-status", "age", "cache-control", "surrogate-key", "vary", "etag", "cacheinval-purge")
    lines = [f"  {name}: {response.headers[name]}" for name in shown if name in response.headers]
    if status is None:
        why = "no Cache-Status of ours: the route has no cached(), or the request did not pass the middleware"
    elif status.detail is not None:
        why = f"the cache gave a reason: {status.detail}"
    elif status.fwd is not None:
        why = f"the request went forward ({status.fwd})"
    else:
        why = f"it was answered from the cache with ttl={status.ttl}"
    return "\n".join([f"expected {wanted}, but {why}", f"  status: {response.status_code}", *lines])


def assert_hit(response: _Response) -> None:
    """The response was answered, fresh, from what is stored."""
    status = _status(response)
    if status is None or not status.hit or (status.ttl is not None and status.ttl < 0):
        raise AssertionError(_story(response, "a fresh hit", status))


def assert_stale(response: _Response) -> None:
    """The response was answered stale: while a refresh runs, or in place of an error."""
    status = _status(response)
    if status is None or status.ttl is None or status.ttl >= 0:
        raise AssertionError(_story(response, "a stale answer", status))


def assert_miss(response: _Response) -> None:
    """The response was made by the app, for this request or for one that this one waited for."""
    status = _status(response)
    if status is None or status.fwd is None or (status.ttl is not None and status.ttl < 0):
        raise AssertionError(_story(response, "an answer made by the app", status))
