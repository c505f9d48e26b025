"""Where everything that a replica does can be stopped: gates, and the knowledge of when all the rest stands still."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from tests.helpers.mutations import settle

LOST = "lost"
TWICE = "twice"

# Real seconds after which something that does not come to rest fails its test.
_PATIENCE = 20.0


class Stage:
    """Gates by label. Whoever comes to one that is held waits there until it is opened, as `label'` if it is taken.

    `steps` counts the gates opened; `passed` counts who came to each gate, held or not.
    """

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.once = False
        self.parked: dict[str, asyncio.Future[Any]] = {}
        self.opened_at: dict[str, int] = {}
        self.passed: Counter[str] = Counter()
        self.steps = 0
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # -- gates ----------------------------------------------------------------------------------

    def hold(self, *labels: str) -> None:
        """Let whoever comes there from now on wait."""
        self.held.update(labels)

    def park(self, label: str) -> asyncio.Future[Any] | None:
        """A place at a gate, if it is held: the future is done when it is opened."""
        self.passed[label] += 1
        if label not in self.held or (self.once and label in self.opened_at):
            return None
        while label in self.parked:
            label += "'"
        place: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.parked[label] = place
        place.add_done_callback(lambda _: self._left(label, place))
        return place

    def _left(self, label: str, place: asyncio.Future[Any]) -> None:
        if self.parked.get(label) is place:
            del self.parked[label]

    async def gate(self, label: str) -> None:
        """Wait here if it is held; raises what it is opened with."""
        place = self.park(label)
        if place is not None:
            error = await place
            if error is not None:
                raise error

    def open(self, label: str, how: Any = None) -> None:
        """Let go on who stands there; `how` is an error to raise, or for messages LOST or TWICE."""
        assert label in self.parked, f"nobody is at {label}, but at {sorted(self.parked)}"
        self.steps += 1
        self.opened_at[label] = self.steps
        self.parked.pop(label).set_result(how)

    def free(self, *labels: str) -> None:
        """Hold these no longer, and let go on who stands there."""
        self.held.difference_update(labels)
        for label in [parked for parked in self.parked if parked.rstrip("'") in labels]:
            self.open(label)

    def free_all(self) -> None:
        """Hold nothing."""
        self.free(*self.held)

    # -- standing still -------------------------------------------------------------------------

    @contextmanager
    def talking(self) -> Generator[None]:
        """Around what waits for a server: while it runs nothing stands still."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def still(self) -> None:
        """Until all that runs waits for a gate, for time, or for another that does."""
        async with asyncio.timeout(_PATIENCE):
            await settle()
            while self._busy:
                await self._idle.wait()
                await settle()


class Subscriptions:
    """All subscriptions of a play: what has been published has arrived where a mark published after it has."""

    def __init__(self) -> None:
        self._marks: dict[object, int] = {}
        self._arrived = asyncio.Event()
        self.pending = False

    def begun(self, who: object) -> None:
        """A subscription is there."""
        self._marks.setdefault(who, 0)

    def ended(self, who: object) -> None:
        """A subscription is no longer there."""
        self._marks.pop(who, None)
        self._arrived.set()

    def arrived(self, who: object, mark: int) -> None:
        """A mark has come."""
        self._marks[who] = max(self._marks.get(who, 0), mark)
        self._arrived.set()

    async def all(self, mark: int) -> None:
        """Until a mark has come everywhere."""
        async with asyncio.timeout(_PATIENCE):
            while any(seen < mark for seen in self._marks.values()):
                self._arrived.clear()
                await self._arrived.wait()


def labels(names: Iterable[str], *gates: str) -> tuple[str, ...]:
    """The same gates of several replicas."""
    return tuple(f"{name}.{gate}" for name in names for gate in gates)
