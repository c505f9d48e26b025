"""How much an unsafe request purges, row by row."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.core.extent import Extent, Handler, extent_of

RAN, STOPPED, UNREACHED = Handler.RAN, Handler.STOPPED, Handler.UNREACHED
ALL, TARGET, FACTS = Extent.ALL, Extent.TARGET, Extent.FACTS


@pytest.mark.parametrize(
    ("status", "handler", "policy", "headers"),
    [
        *((status, RAN, ALL, ALL) for status in (200, 201, 204, 299, 300, 301, 303, 307, 308, 399)),
        *((status, handler, FACTS, FACTS) for status in (400, 401, 404, 405, 422, 500, 599) for handler in Handler),
        *((status, handler, FACTS, FACTS) for status in (307, 308) for handler in (STOPPED, UNREACHED)),
        *((status, handler, FACTS, TARGET) for status in (301, 302, 303) for handler in (STOPPED, UNREACHED)),
        (200, STOPPED, FACTS, TARGET),
        (200, UNREACHED, TARGET, TARGET),
        (299, UNREACHED, TARGET, TARGET),
    ],
)
def test_the_extent_of_a_status_and_a_handler(status: int, handler: Handler, policy: Extent, headers: Extent) -> None:
    """An error changes nothing; without a handler at most the target is purged, and nothing for 307 and 308."""
    assert extent_of(status, handler, by_headers=False) is policy
    assert extent_of(status, handler, by_headers=True) is headers
