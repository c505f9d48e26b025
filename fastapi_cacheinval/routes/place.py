"""Where a route stands: what is on the way to it, what holds where there are several ways, and what may change.

Whether an app is still what it was when its routes were looked at is asked whenever a route's plan is looked up: to
look costs a microsecond or two. Watched are the middleware of applications, what mounts and routers lead to, and a
route's own app, dependant and dependencies. What cannot be seen: a change inside a function or a middleware instance,
and a method that is patched on a class after the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

__all__ = ["Place", "Rounds", "Watched", "own_number"]

_numbers = count(1)
# So many routes are asked in one look: some tens of microseconds.
_AT_ONCE = 32

_Attribute = tuple[object, str, object]
_Member = tuple[Mapping[str, object], str, object]
_Elements = tuple[list[Any], list[Any]]


@dataclass(slots=True, eq=False)
class Watched:
    """What is watched, as it was: attributes of objects, entries of `__dict__`s, what lists hold, and questions."""

    fields: list[_Attribute] = field(default_factory=list[_Attribute])
    entries: list[_Member] = field(default_factory=list[_Member])
    lists: list[_Elements] = field(default_factory=list[_Elements])
    questions: list[Callable[[], bool]] = field(default_factory=list[Callable[[], bool]])

    def attributes(self, thing: object, *names: str) -> None:
        """Watch attributes that hold the same object until somebody sets them."""
        for name in names:
            value = getattr(thing, name, None)
            # A property that makes its value anew would look like a change each time.
            if getattr(thing, name, None) is value:
                self.fields.append((thing, name, value))

    def members(self, thing: object, *names: str) -> None:
        """Watch for methods that are replaced on an object itself."""
        known: Mapping[str, object] = getattr(thing, "__dict__", {})
        self.entries += [(known, name, known.get(name)) for name in names]

    def elements(self, thing: list[Any]) -> None:
        """Watch what a list holds: other elements that are equal are no change."""
        self.lists.append((thing, [*thing]))

    def asked(self, changed: Callable[[], bool]) -> None:
        """Watch something that needs a function to tell."""
        self.questions.append(changed)

    def joined(self, others: Iterable[Watched]) -> Watched:
        """This and others as one, with nothing in it twice."""
        every = [self, *others]
        fields = {(id(each[0]), each[1]): each for one in every for each in one.fields}
        entries = {(id(each[0]), each[1]): each for one in every for each in one.entries}
        lists = {id(each[0]): each for one in every for each in one.lists}
        questions = dict.fromkeys(each for one in every for each in one.questions)
        return Watched([*fields.values()], [*entries.values()], [*lists.values()], [*questions])

    @property
    def changed(self) -> bool:
        """Whether any of it is not what it was; on the path of every request that looks up its route's plan."""
        for thing, name, value in self.fields:
            if getattr(thing, name, None) is not value:
                return True
        for known, name, value in self.entries:
            if known.get(name) is not value:
                return True
        for elements, before in self.lists:
            # Lists compare by identity first, so this is one call where nothing has changed.
            if elements != before:
                return True
        # A loop and no generator, as above.
        for question in self.questions:  # noqa: SIM110
            if question():
                return True
        return False


class Rounds:
    """Many that are watched, looked at some at a time: a look takes no longer however many there are."""

    def __init__(self, watched: Iterable[Watched]) -> None:
        every = tuple(watched)
        self._parts = [Watched().joined(every[start : start + _AT_ONCE]) for start in range(0, len(every), _AT_ONCE)]
        self._next = 0

    @property
    def changed(self) -> bool:
        """Whether any of the next few is not what it was; a round of looks asks all of them."""
        if not self._parts:
            return False
        self._next = (self._next + 1) % len(self._parts)
        return self._parts[self._next].changed


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
