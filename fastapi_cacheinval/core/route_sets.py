"""Which routes a replica serves, in few bytes, and whether two replicas serve the same app.

A set is known by its 64 smallest digests. Two releases of one app have routes in common, so their sketches do too. Two
services have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

__all__ = ["RouteSet"]

_MOST = 64
_DIGEST_BYTES = 8
_LONGEST_EXAMPLE = 200


@dataclass(frozen=True, slots=True)
class RouteSet:
    """A sketch of a replica's routes: sorted digests, at most 64, and the name of one route for people to read."""

    digests: tuple[bytes, ...]
    example: str = ""

    @classmethod
    def of(cls, routes: Iterable[str]) -> Self:
        """The sketch of routes, each by a text that names it in every process."""
        named = {_digest(route): route for route in routes}
        kept = tuple(sorted(named)[:_MOST])
        return cls(kept, named[kept[0]] if kept else "")

    @property
    def name(self) -> bytes:
        """The same for the same routes."""
        return _digest(b"".join(self.digests)).hex().encode()

    def encode(self) -> bytes:
        """The sketch as bytes, at most 713 of them."""
        example = self.example.encode("utf-8", "replace")[:_LONGEST_EXAMPLE]
        return bytes((len(self.digests),)) + b"".join(self.digests) + example

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """What `encode` gave; None for anything that it cannot have given."""
        count = data[0] if data else 0
        end = 1 + count * _DIGEST_BYTES
        if not 0 < count <= _MOST or len(data) < end or len(data) > end + _LONGEST_EXAMPLE:
            return None
        digests = tuple(data[at : at + _DIGEST_BYTES] for at in range(1, end, _DIGEST_BYTES))
        return cls(digests, data[end:].decode("utf-8", "replace"))

    def is_another_service(self, other: RouteSet) -> bool:
        """Whether the two have no route in common; two releases of one app have some.

        A full sketch says nothing of digests above its last one. False where the two say too little to compare.
        """
        full = [each.digests[-1] for each in (self, other) if len(each.digests) == _MOST]
        one, two = ({digest for digest in each.digests if not full or digest <= min(full)} for each in (self, other))
        return bool(one and two) and not one & two


def _digest(route: str | bytes) -> bytes:
    data = route if isinstance(route, bytes) else route.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
