"""Where a route stands: what is on the way to it, and what follows where there are several ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from fastapi_cacheinval.routes.changes import Watched

__all__ = ["Place", "own_number"]

_numbers = count(1)


def own_number() -> int:
    """A number below 0 that no other place in this process has."""
    return -next(_numbers)


@dataclass(frozen=True, slots=True)
class Place:
    """One way to a route: mounts, hosts, routers and middleware.

    - `prefix`: the template of the mounts above it.
    - `parameters`: the names that the mounts' paths and hosts give; `hosts` are those of hosts.
    - `front_off`: what the front lookup would skip on the way, if anything.
    - `inherited`: the ids of the `cached()` and `invalidates()` of the apps, routers and includes above.
    - `origin`: `CORSMiddleware` is on the way.
    - `commits`: something on the way may commit after the response.
    - `under`: the patterns of the hosts above.
    - `ordinal`: 0, or a number of this process's that tells routes apart that are the same by name.
    - `layers`: the names of what may change responses on the way.
    - `writers`: what may write into answers on the way, harmless or not, the same in every process.
    - `watched`: what would make all of this untrue.
    """

    prefix: str = ""
    parameters: frozenset[str] = frozenset()
    front_off: str | None = None
    inherited: frozenset[int] = frozenset()
    origin: bool = False
    commits: bool = False
    hosts: frozenset[str] = frozenset()
    under: tuple[str, ...] = ()
    ordinal: int = 0
    layers: tuple[str, ...] = ()
    writers: tuple[bytes, ...] = ()
    watched: Watched = field(default_factory=Watched, compare=False)

    @classmethod
    def worst_of(cls, ways: Sequence[Place]) -> Place:
        """What holds for a route that is reached by several ways; `prefix`, `under` and `ordinal` are the first's.

        A request may come by any of them, and what is stored by one is handed out by another: so all layers count,
        a commit may come late if it may by any, and the front lookup needs all to allow it.
        """
        first, *others = ways
        if not others:
            return first
        return cls(
            prefix=first.prefix,
            parameters=first.parameters.intersection(*(way.parameters for way in others)),
            front_off=next((way.front_off for way in ways if way.front_off is not None), None),
            inherited=first.inherited.union(*(way.inherited for way in others)),
            origin=any(way.origin for way in ways),
            commits=any(way.commits for way in ways),
            hosts=first.hosts.union(*(way.hosts for way in others)),
            under=first.under,
            ordinal=first.ordinal,
            layers=tuple(dict.fromkeys(layer for way in ways for layer in way.layers)),
            writers=tuple(dict.fromkeys(writer for way in ways for writer in way.writers)),
            watched=first.watched.joined(way.watched for way in others),
        )
