"""How much an unsafe request purges, row by row."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.core.extent import Extent, Handler, extent_of, path_reach, paths_named

UNREACHED, STOPPED, REFUSED = Handler.UNREACHED, Handler.STOPPED, Handler.REFUSED
GIVEN, FAILED, RAN = Handler.GIVEN, Handler.FAILED, Handler.RAN
ALL, TARGET, FACTS = Extent.ALL, Extent.TARGET, Extent.FACTS


@pytest.mark.parametrize(
    ("status", "handler", "policy", "headers"),
    [
        *((status, GIVEN, ALL, ALL) for status in (200, 201, 204, 299, 300, 301, 303, 399)),
        *((status, GIVEN, ALL, FACTS) for status in (307, 308)),
        *((status, FAILED, ALL, ALL) for status in (200, 303, 307, 500, 502, 504, 599)),
        *((status, RAN, ALL, ALL) for status in (200, 303, 307, 400, 404, 409, 499, 500, 504, 599)),
        *(
            (status, handler, FACTS, FACTS)
            for status in (400, 401, 404, 405, 422)
            for handler in Handler
            if handler is not RAN
        ),
        *((status, handler, FACTS, FACTS) for status in (500, 599) for handler in (UNREACHED, STOPPED, REFUSED, GIVEN)),
        *((status, handler, FACTS, FACTS) for status in (307, 308) for handler in (UNREACHED, STOPPED, REFUSED)),
        *((status, handler, FACTS, TARGET) for status in (301, 302, 303) for handler in (UNREACHED, STOPPED, REFUSED)),
        *((200, handler, FACTS, TARGET) for handler in (STOPPED, REFUSED)),
        *((status, UNREACHED, TARGET, TARGET) for status in (200, 299)),
        *((None, handler, FACTS, FACTS) for handler in (UNREACHED, STOPPED)),
        *((None, handler, ALL, ALL) for handler in (REFUSED, GIVEN, FAILED, RAN)),
    ],
)
def test_the_extent_of_a_status_and_a_handler(
    status: int | None, handler: Handler, policy: Extent, headers: Extent
) -> None:
    """What a handler did counts before the status; without one at most the target is purged, and nothing for 307."""
    assert extent_of(status, handler, by_headers=False) is policy
    assert extent_of(status, handler, by_headers=True) is headers


@pytest.mark.parametrize(
    ("setting", "policy", "headers"), [(True, True, True), ("target", "target", "target"), (False, False, "target")]
)
def test_by_headers_the_target_is_in_reach(setting: bool | str, policy: bool | str, headers: bool | str) -> None:
    """RFC 9111 section 4.4 does not leave it to a setting."""
    assert path_reach(setting, by_headers=False) == policy
    assert path_reach(setting, by_headers=True) == headers


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/a/b", ["/a/b", "/a/b/", "/a", "/a/"]),
        ("/a/b/", ["/a/b", "/a/b/", "/a", "/a/"]),
        ("/a", ["/a", "/a/", "/"]),
        ("/", ["/"]),
        ("/{x}/b", ["/{x}/b", "/{x}/b/", "/{x}", "/{x}/"]),
    ],
)
def test_the_paths_that_a_purge_names(path: str, named: list[str]) -> None:
    """The path and its parent, with and without a slash at the end; the target is one spelling; nothing out of reach."""
    assert paths_named(path, True) == named
    assert paths_named(path, "target") == [path]
    assert paths_named(path, False) == []
