"""The replicas of the namespace, as the page lists them: as they saw themselves last, and as the log knows them."""

from __future__ import annotations

from math import isinf
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.core.fleet import Fleet, SeenReplica
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.engine.process_name import process_name
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.inspector.plain import Told, plain

__all__ = ["Replicas"]

_MOST_LISTED = 100
# Real seconds for which one look at Redis serves everybody who asks.
_READ_EVERY = 1.5


class Replicas:
    """Reads them from Redis, for one cache; where that is away, the others are listed as they were known last."""

    def __init__(self, cache: HTTPCache) -> None:
        self._core = internals_of(cache)
        self._fleet: Fleet | None = None
        self._why: str | None = None
        self._read = -_READ_EVERY

    async def show(self, request: Request) -> Response:
        """`GET api/replicas`."""
        if monotonic() - self._read >= _READ_EVERY:
            self._read = monotonic()
            try:
                self._fleet, self._why = await self._core.fleet(), None
            except TierUnavailable as error:
                self._why = error.reason
        fleet, rows, more, log = self._fleet, [self._here()], 0, None
        if fleet is not None:
            others = [each for each in fleet.replicas if each.replica != self._core.identity]
            rows += [_row(each, fleet, known=self._why is None) for each in others[: _MOST_LISTED - 1]]
            more = max(0, len(others) - _MOST_LISTED + 1)
            log = plain(fleet.log)
        return Told({"replicas": rows, "more": more, "log": log, "why": self._why})

    def _here(self) -> dict[str, Any]:
        """This replica, of which everything is known now."""
        now = self._core.statistics()
        return {
            **_numbers(now),
            "name": process_name(),
            "here": True,
            "live": now.lease_remaining > 0,
            "lease": None if isinf(now.lease_remaining) else max(0.0, now.lease_remaining),
            "silent": None,
            "applied": now.applied,
            "lag": now.lag,
            "release": self._core.settings.version,
        }


def _row(seen: SeenReplica, fleet: Fleet, *, known: bool) -> dict[str, Any]:
    """Another replica: its summary is seconds old, what the log knows of it is not, where that is `known` now."""
    summary = seen.summary
    return {
        **({} if summary is None else _numbers(summary.statistics)),
        "name": seen.name,
        "here": False,
        "live": seen.live if known else None,
        "lease": seen.lease if known else None,
        "silent": seen.silent,
        "applied": seen.applied,
        "lag": fleet.behind(seen),
        "release": "" if summary is None else summary.release,
    }


def _numbers(now: Statistics) -> dict[str, Any]:
    return {
        "connected": now.connected,
        "queue_length": now.queue_length,
        "waiting": now.waiting,
        "requests": now.hits + now.stale + now.misses + now.collapsed,
        "answered": now.hits + now.stale + now.collapsed,
        "size_bytes": now.size_bytes,
    }
