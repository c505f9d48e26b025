"""Whether an app is still what it was when its routes were looked at.

To look costs a microsecond or two, so it is done whenever a route's plan is looked up. Watched are the middleware of
applications, what mounts and routers lead to, and a route's own app, dependant and dependencies. What cannot be seen: a
change inside a function or a middleware instance, and a method that is patched on a class after the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Rounds", "Watched"]

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
