"""The arithmetic of `confirm_replicas`."""

from __future__ import annotations

from itertools import combinations

import pytest

from fastapi_cacheinval.core.confirming import doubt_about, needed


@pytest.mark.parametrize("servers", range(1, 8))
def test_two_primaries_with_their_replicas_have_a_server_in_common(servers: int) -> None:
    """A primary and `needed` others are a majority: any two such groups overlap, and with one less some do not."""
    everybody = range(servers)

    def apart(replicas: int) -> bool:
        groups = [set(group) for group in combinations(everybody, replicas + 1)]
        return any(not one & other for one in groups for other in groups)

    assert not apart(needed(servers))
    if needed(servers):
        assert apart(needed(servers) - 1)


@pytest.mark.parametrize(
    ("confirm_replicas", "connected", "said"),
    [
        (1, 2, None),
        (1, 1, None),
        (2, 4, None),
        (2, 2, None),
        (0, 0, None),
        (1, 0, "set confirm_replicas=0"),
        (2, 1, "2 or more servers"),
        (1, 3, "Set confirm_replicas=2"),
        (1, 4, "two primaries could each have 1 replica"),
    ],
)
def test_what_cannot_work_or_keeps_no_bound_is_said_with_what_to_do(
    confirm_replicas: int, connected: int, said: str | None
) -> None:
    """Too few replicas of the server take no lease; too few confirmations let two primaries be believed."""
    doubt = doubt_about(confirm_replicas, connected)
    if said is None:
        assert doubt is None
    else:
        assert doubt is not None
        assert said in doubt
