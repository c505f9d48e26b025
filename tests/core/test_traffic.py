"""The routes of all replicas are summed, and the busiest come first."""

from __future__ import annotations

from dataclasses import replace

from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.core.statistics import RouteStatistics
from fastapi_cacheinval.core.traffic import traffic
from tests.core.test_doctor import LOG, NOW, replica


def test_routes_are_summed_over_replicas() -> None:
    """Counts of all, rates of those that are in touch."""
    counts = RouteStatistics(hits=3, misses=1, forwards=2, forward_seconds=1.0, size_bytes=10)
    one, two, gone = (replica(pid, routes={"GET /a": counts}) for pid in (1, 2, 3))
    rated = [
        replace(each, summary=replace(each.summary, rates={"GET /a": 2.0}))
        for each in (one, two, gone)
        if each.summary is not None
    ]
    (row,) = traffic(Fleet("shop", NOW, LOG, (rated[0], rated[1], replace(rated[2], silent=60.0))))
    assert (row.rate, row.counts.hits, row.counts.requests, row.counts.size_bytes) == (4.0, 9, 12, 30)
    assert row.mean_forward == 0.5


def test_the_busiest_come_first_and_then_those_asked_most() -> None:
    """A route without a forward has no mean."""
    routes = {f"GET /{name}": RouteStatistics(hits=hits) for name, hits in (("a", 1), ("b", 5), ("c", 5))}
    busy = replica(1, routes=routes)
    assert busy.summary is not None
    rows = traffic(Fleet("shop", NOW, LOG, (replace(busy, summary=replace(busy.summary, rates={"GET /a": 1.0})),)))
    assert [row.route for row in rows] == ["GET /a", "GET /b", "GET /c"]
    assert rows[0].mean_forward is None
    assert traffic(Fleet("shop", NOW, LOG, ())) == []
