"""Route sets: replicas and releases are told from another service by what they have in common."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.route_sets import RouteSet

ROUTES = st.sets(st.text(min_size=1, max_size=12), max_size=30)


@given(ROUTES)
def test_the_order_of_the_routes_does_not_matter(routes: set[str]) -> None:
    """Replicas have one name, in whatever order they come to their routes."""
    mixed = [*routes, *routes]
    random.Random(1).shuffle(mixed)
    assert RouteSet.of(mixed) == RouteSet.of(sorted(routes))
    assert RouteSet.of(mixed).name == RouteSet.of(sorted(routes)).name


@given(ROUTES, ROUTES)
def test_two_sets_are_of_two_services_exactly_where_they_have_nothing_in_common(one: set[str], two: set[str]) -> None:
    """One route in common is enough to be a release; an empty set is nobody's."""
    another = RouteSet.of(one).is_another_service(RouteSet.of(two))
    assert another == bool(one and two and not one & two)
    assert RouteSet.of(two).is_another_service(RouteSet.of(one)) == another


def test_large_sets_are_compared_as_far_as_their_sketches_go() -> None:
    """A small set within a large one is never taken for another service; large disjoint ones are."""
    large = [f"/route/{number}" for number in range(2000)]
    draw = random.Random(7)
    for size in (1, 3, 50, 64, 65, 500, 1999):
        part = draw.sample(large, size)
        assert not RouteSet.of(large).is_another_service(RouteSet.of(part))
        assert not RouteSet.of(part).is_another_service(RouteSet.of(large))
    assert RouteSet.of(large).is_another_service(RouteSet.of(f"/other/{number}" for number in range(2000)))


@given(ROUTES)
def test_what_is_encoded_is_read_again_and_is_small(routes: set[str]) -> None:
    """At most 713 bytes, whatever the routes are called."""
    made = RouteSet.of(routes)
    data = made.encode()
    read = RouteSet.decode(data)
    assert len(data) <= 713
    if routes:
        assert read is not None
        assert read.digests == made.digests
    else:
        assert read is None


def test_an_example_of_any_length_is_cut() -> None:
    """A character that is cut in two does no harm."""
    data = RouteSet.of(["/é" * 500]).encode()
    assert len(data) <= 713
    assert RouteSet.decode(data) is not None


@given(st.binary(max_size=900))
def test_no_bytes_raise(data: bytes) -> None:
    """Whoever writes to Redis writes what they like."""
    read = RouteSet.decode(data)
    assert read is None or read.digests
