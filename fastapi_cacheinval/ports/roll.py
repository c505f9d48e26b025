"""The port of the roll: which route sets the replicas of a namespace serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Roll"]


class Roll(Protocol):
    """The route sets of a namespace, as one event loop reaches them. It is bounded in size and forgets silent ones."""

    async def answer(self, name: bytes, data: bytes) -> Mapping[bytes, bytes]:
        """Say for an hour which routes this replica serves, and hear of the other sets, by name.

        Raises `TierUnavailable`, and nothing else, where the store cannot be reached or refuses.
        """
        ...
