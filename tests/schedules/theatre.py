"""Every order of a small set of gates: one gate is opened at a time, and between two all stands still.

What can be opened next depends on what has happened, so the tree of orders is found out while it is walked. Each order
is run on a path of its own, with the replicas of the play as the one before has left them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.errors import LogUnavailable, PurgeNotDelivered
from tests.schedules.cluster import BOUND, NEW, OLD, Cluster
from tests.schedules.reading import Reading

Actor = Callable[[], Coroutine[Any, Any, None]]


class Run:
    """One order: who was given what, and when the purge had its number, had returned, and was applied where."""

    def __init__(self) -> None:
        self.line: LogEntry | None = None
        self.numbered_at = 0.0
        self.returned: int | None = None
        self.applied: dict[str, int] = {}
        self.readings: dict[str, tuple[Reading, str, float]] = {}


class Theatre:
    """Runs a play in every order and notes what was wrong."""

    def __init__(self, play: Cluster, gates: str, *, fails: str = "", until: str = "") -> None:
        """`fails` names gates whose calls fail; a violation that begins with `until`, if that is given, is the last."""
        self.play = play
        self.fails = frozenset(fails.split())
        self.until = until
        self.gates = frozenset(gates.split())
        self.orders = 0
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []
        self.run = Run()

    # -- actors ---------------------------------------------------------------------------------

    def reads(self, name: str, at: str) -> Actor:
        """A GET at a replica, from its arrival to its end."""

        async def act() -> None:
            await self.play.gate("arrives")
            reading = Reading(self.play.stage.steps)
            self.run.readings[name] = reading, at, self.play.clock.now()
            with contextlib.suppress(asyncio.CancelledError):
                await self.play._read(reading, self.play[at].app)

        return self._named(name, act)

    def purges(self, at: str) -> Actor:
        """A write, and its purge at a replica."""

        async def act() -> None:
            await self.play.gate("writes")
            self.play.value = NEW
            with contextlib.suppress(PurgeNotDelivered):
                await self.play[at].cache.invalidate(self.play.tag)
            self.run.returned = self.play.stage.steps

        return self._named("W", act)

    def mutates(self, at: str) -> Actor:
        """A PUT; it has returned once its app has, although its response may have been released before."""

        async def act() -> None:
            await self.play.mutates("M", at).task
            self.run.returned = self.play.stage.steps

        return self._named("M", act)

    def beats(self, at: str) -> Actor:
        """A heartbeat."""

        async def act() -> None:
            self.play.beats(at)

        return self._named("H", act)

    def ticks(self, *seconds: float) -> Actor:
        """Time, in so many steps."""

        async def act() -> None:
            for number, each in enumerate(seconds, 1):
                await self.play.gate(f"{number}")
                self.play.clock.tick(each)

        return self._named("T", act)

    def cancels(self, name: str) -> Actor:
        """The end of a GET, if it has come."""

        async def act() -> None:
            await self.play.gate("cancels")
            reading, _, _ = self.run.readings[name]
            assert reading.call is not None
            reading.call.task.cancel()

        return self._named("X", act)

    def does(self, name: str, *steps: Callable[[], Awaitable[None]]) -> Actor:
        """Steps with a gate before each."""

        async def act() -> None:
            for number, step in enumerate(steps, 1):
                await self.play.gate(f"{number}")
                await step()

        return self._named(name, act)

    def _named(self, name: str, act: Actor) -> Actor:
        async def named() -> None:
            await self.play.acts(name, act())

        return named

    # -- the enumeration ------------------------------------------------------------------------

    async def plays(self, *actors: Actor, prepare: Actor | None = None, check: Actor | None = None) -> None:
        """Run every order of the actors' gates, and check what came of each."""
        order: list[int] = []
        while True:
            widths = await self._one(order, actors, prepare, check)
            at = len(widths) - 1
            while at >= 0 and order[at] + 1 == widths[at]:
                at -= 1
            if at < 0 or (self.until and self._seen()):
                return
            order[at:] = [order[at] + 1]

    async def _one(
        self, order: list[int], actors: tuple[Actor, ...], prepare: Actor | None, check: Actor | None
    ) -> list[int]:
        """Run one order, completed by first choices; how many choices there were at each step."""
        play, stage = self.play, self.play.stage
        self.orders += 1
        play.path, play.value, play.most_forwarding = f"/item/{self.orders}", OLD, 0
        if prepare is not None:
            await prepare()
        self.run = Run()
        known = {name: len(member.log.answers) for name, member in play.members.items()}
        stage.held, stage.once, stage.opened_at = set(self.gates), True, {}
        tasks = [play.acts("-", actor()) for actor in actors]
        widths: list[int] = []
        while True:
            await play.settled()
            self._look(known)
            labels = sorted(stage.parked)
            if not labels:
                break
            if len(widths) == len(order):
                order.append(0)
            widths.append(len(labels))
            label = labels[order[len(widths) - 1]]
            stage.open(label, LogUnavailable("it is gone") if label in self.fails else None)
        stage.held, stage.once = set(), False
        stuck = [task for task in play.tasks if not task.done()]
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck)
            self.wrong("somebody waits for ever")
        for task in tasks:
            if not task.cancelled():
                task.result()
        play.tasks.clear()
        self._judge()
        await (self.nothing_old if check is None else check)()
        return widths

    def _look(self, known: dict[str, int]) -> None:
        """Note since which step the purge has its number, the last if it got several, and who has applied it."""
        run, play = self.run, self.play
        for name, member in play.members.items():
            for answer in member.log.answers[known[name] :]:
                if answer.line is not None and answer.line is not run.line:
                    run.line, run.numbered_at = answer.line, play.clock.now()
                    run.applied.clear()
            known[name] = len(member.log.answers)
        if run.line is not None:
            for name, member in play.members.items():
                replica = member.replica
                if replica.term == run.line.term and replica.applied >= run.line.seq:
                    run.applied.setdefault(name, play.stage.steps)

    # -- what must not be -----------------------------------------------------------------------

    def wrong(self, what: str) -> None:
        """Note a violation with the order that led to it."""
        self.violations.append(f"{what} after {' '.join(self.play.stage.opened_at)}")

    def _seen(self) -> bool:
        """Whether what is looked for was found; it is the last violation then."""
        found = [number for number, each in enumerate(self.violations, 1) if each.startswith(self.until)]
        del self.violations[found[0] if found else len(self.violations) :]
        return bool(found)

    def _judge(self) -> None:
        run = self.run
        for name, (reading, at, came) in run.readings.items():
            self.seen[f"{name} {reading.how}"] += 1
            if reading.value != OLD:
                continue
            applied = run.applied.get(at)
            if run.returned is not None and at == "B" and reading.arrived > run.returned:
                self.wrong(f"G2: {name} came to the purge's own replica after it had returned and was given the old")
            if applied is not None and reading.arrived > applied:
                self.wrong(f"G3: {name} came after its replica had applied the purge and was given the old")
            if run.line is not None and came >= run.numbered_at + BOUND:
                self.wrong(f"G3: {name} came later than the bound after the purge and was given the old")
            late = applied is not None and reading.answered is not None and reading.answered > applied
            if late and not reading.forwarded:
                self.wrong(f"G4: {name} was handed over the old after its replica had applied the purge")

    async def in_touch(self) -> None:
        """Everybody has asked the log since all was still."""
        for name in self.play.members:
            self.play.beats(name)
            await self.play.settled()

    async def nothing_old(self) -> None:
        """Once everybody is in touch the new value is kept by all, and nothing is left behind."""
        play = self.play
        await self.in_touch()
        for name in play.members:
            first, second = await play.read(name), await play.read(name)
            if (first.value, second.value) != (NEW, NEW):
                self.wrong(f"the old value stayed on {name}")
            elif second.how != "hit":
                self.wrong(f"the new value was not kept on {name}")
        self.nothing_left()

    def nothing_left(self) -> None:
        """No fence, no flight and no fill lock outlives what it was for."""
        for name, member in self.play.members.items():
            if member.replica._fences:
                self.wrong(f"a fence was left on {name}")
            if len(member.cache._core.runtime.flights):
                self.wrong(f"a flight was left on {name}")
        if self.play.locks():
            self.wrong("a fill lock was left")

    async def one_at_a_time(self) -> None:
        """G7: nobody forwarded beside another, and all who were not cancelled have their answer."""
        self.nothing_left()
        if self.play.most_forwarding > 1:
            self.wrong("G7: two forwarded at the same time")
        for name, (reading, _, _) in self.run.readings.items():
            if reading.value is None and not (reading.call is not None and reading.call.task.cancelled()):
                self.wrong(f"{name} was given nothing")

    def report(self, title: str, capsys: pytest.CaptureFixture[str], expected: int) -> None:
        """Print the number of orders and what was seen in them; it must be the expected number, and no violation."""
        with capsys.disabled():
            print(  # noqa: T201  # how much was run is part of the result
                f"\n{title}: {self.orders} orders, {len(self.violations)} violations; {dict(sorted(self.seen.items()))}"
            )
        assert self.violations == [], self.violations[0]
        assert self.orders == expected
