"""The counts of routes, without any app."""

from __future__ import annotations

from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.route_counts import MOST_ROUTES, RouteBook


def test_saved_seconds_are_hits_times_the_mean_forward() -> None:
    """Two forwards of one and three seconds, one of them failed, and five hits: ten seconds are saved."""
    book = RouteBook()
    counts = book.of("/a")
    counts.filled(1.0, failed=False)
    counts.filled(3.0, failed=True)
    counts.front_hits += 4
    counts.answered(Result.HIT)
    counts.answered(Result.STALE)
    now = book.statistics()["GET /a"]
    assert (now.hits, now.stale, now.forwards, now.errors) == (5, 1, 2, 1)
    assert (now.forward_seconds, now.saved_seconds, now.requests) == (4.0, 10.0, 6)
    assert (book.front_hits, book.total(Result.HIT), book.total(Result.STALE)) == (4, 1, 1)


def test_a_route_that_was_never_forwarded_here_saves_nothing_that_is_known() -> None:
    """Hits on what another replica has filled are counted, and no time is invented for them."""
    book = RouteBook()
    book.of("/a").front_hits += 3
    assert book.statistics()["GET /a"].saved_seconds == 0.0


def test_the_number_of_routes_is_bounded() -> None:
    """Past a thousand routes all further ones are one, none of whose requests is lost."""
    book = RouteBook()
    for number in range(10 * MOST_ROUTES):
        book.of(f"/{number}").answered(Result.MISS)
    book.of(None).answered(Result.MISS)
    now = book.statistics()
    assert len(now) == MOST_ROUTES + 1
    assert now["(other)"].misses == 9 * MOST_ROUTES + 1
    assert book.total(Result.MISS) == 10 * MOST_ROUTES + 1
    assert book.of("/0") is not book.of("/5000")


def test_a_route_without_anything_to_tell_is_left_out() -> None:
    """Nothing was asked: nothing is told, of no route that is known either."""
    book = RouteBook()
    book.of("/a")
    assert book.statistics() == {}
