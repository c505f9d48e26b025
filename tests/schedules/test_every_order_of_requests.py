"""Fill, purge and waiter are split at their awaits, and every order of the pieces is run.

Each actor stops at gates. One gate is opened at a time, and the loop runs until everything waits
again, so an order of gates is one deterministic run. All orders are enumerated depth first: what can
be opened next depends on what has happened, so the tree is found out while it is walked.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.framework import exchange, policy_rules
from fastapi_cacheinval.framework.mutation import Mutation
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.mutations import Answer, Call, http_scope, settle
from tests.schedules.ports import Actor

# Hundreds of orders are run: on a busy machine that takes more than the usual minute.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

_actor: ContextVar[str] = ContextVar("actor", default="refresh")
_OLD, _NEW = 1, 2


class Stage:
    """The gates of one run, and the number of gates opened so far."""

    def __init__(self, gates: frozenset[str]) -> None:
        self.gates = gates
        self.parked: dict[str, asyncio.Future[None]] = {}
        self.opened_at: dict[str, int] = {}
        self.step = 0

    async def gate(self, label: str) -> None:
        """Stop here until this gate is opened, where the run has it."""
        if label in self.gates and label not in self.opened_at:
            while label in self.parked:
                label += "'"
            self.parked[label] = asyncio.get_running_loop().create_future()
            await self.parked[label]

    def open(self, label: str) -> None:
        """Let whoever stands there go on."""
        self.step += 1
        self.opened_at[label] = self.step
        gate = self.parked.pop(label)
        if not gate.done():
            gate.set_result(None)


@dataclass(slots=True)
class Reading:
    """One reader's story: when it came, and what it was given."""

    arrived: int
    answer: Answer | None = None

    @property
    def value(self) -> int | None:
        return self.answer.json() if self.answer is not None and self.answer.status_code == 200 else None

    @property
    def how(self) -> str:
        """`hit`, `stale`, `collapsed`, `forwarded`, `superseded` or `failed`."""
        if self.answer is None or self.answer.status_code != 200:
            return "failed"
        status = self.answer.headers["cache-status"]
        for word in ("collapsed", "superseded"):
            if word in status:
                return word
        if "ttl=-" in status:
            return "stale"
        return "hit" if "; hit" in status else "forwarded"


@dataclass(slots=True)
class Run:
    """One order: what the actors did, and when the purge had its number and had returned."""

    stage: Stage
    path: str
    value: int = _OLD
    fails: bool = False
    numbered: int | None = None
    returned: int | None = None
    readings: dict[str, Reading] = field(default_factory=dict)
    write: Call | None = None


class Theatre:
    """An app whose awaits are gates, and the enumeration of all orders of a play."""

    def __init__(self, gates: str, **policy: Any) -> None:
        self.gates = frozenset(gates.split())
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock)
        self.app = FastAPI()
        self.run: Run = Run(Stage(frozenset()), "")
        self.orders = 0
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []
        self._declare(policy)
        self.app.add_middleware(CacheMiddleware, cache=self.cache)
        self._gate_the_log()

    def _declare(self, policy: dict[str, Any]) -> None:
        async def before_lookup() -> None:
            await self._gate("dependency")

        async def after_lookup() -> None:
            await self._gate("looked-up")

        async def session() -> AsyncIterator[None]:
            yield
            await self._gate("commits")
            self.run.value = _NEW
            await self._gate("committed")

        options: dict[str, Any] = {"ttl": 1000, "jitter": 0, "early_refresh": 0, "tags": ["item:{number}"], **policy}

        @self.app.get("/item/{number}", dependencies=[Depends(before_lookup), cached(**options), Depends(after_lookup)])
        async def read(number: int) -> int:
            await self._gate("handler")
            value = self.run.value
            await self._gate("has-read")
            if self.run.fails:
                raise RuntimeError("down")
            return value

        @self.app.put("/item/{number}", dependencies=[Depends(session), invalidates("item:{number}")])
        async def write(number: int) -> dict[str, bool]:
            await self._gate("handler")
            return {"ok": True}

    def _gate_the_log(self) -> None:
        log: Any = self.cache._core.bus
        publish = log.publish

        async def gated(proposal: Any) -> Any:
            run = self.run
            await run.stage.gate("log.before")
            line = await publish(proposal)
            run.numbered = run.stage.step
            await run.stage.gate("log.after")
            return line

        log.publish = gated

    async def _gate(self, label: str) -> None:
        await self.run.stage.gate(f"{_actor.get()}.{label}")

    # -- actors ---------------------------------------------------------------------------------

    async def reads(self, name: str) -> None:
        """A GET, from its arrival to its end."""
        run = self.run
        _actor.set(Actor(name))
        await self._gate("arrives")
        reading = run.readings[name] = Reading(run.stage.step)

        async def sends(message: Any) -> None:
            await self._gate(message["type"].rpartition(".")[2])

        call = Call(self.app, http_scope("GET", run.path), on_send=sends)
        try:
            reading.answer = await call.answer()
        except RuntimeError:
            assert run.fails

    async def purges(self, *, soft: bool = False) -> None:
        """A write, and its purge by hand."""
        run = self.run
        _actor.set(Actor("W"))
        await self._gate("writes")
        run.value = _NEW
        await self.cache.invalidate(f"item:{run.path.rpartition('/')[2]}", soft=soft)
        run.returned = run.stage.step

    async def mutates(self) -> None:
        """A PUT, which counts as returned once its response has begun."""
        run = self.run
        _actor.set(Actor("W"))
        await self._gate("arrives")

        async def sends(message: Any) -> None:
            await self._gate(message["type"].rpartition(".")[2])
            if run.returned is None and dict(message.get("headers", ())).get(b"cacheinval-purge") == b"done":
                run.returned = run.stage.step

        run.write = Call(self.app, http_scope("PUT", run.path), on_send=sends)
        await asyncio.wait([run.write.task])
        if run.returned is None:
            run.returned = run.stage.step

    async def ticks(self) -> None:
        """The hold times out."""
        _actor.set(Actor("T"))
        await self._gate("ticks")
        self.clock.tick(0.2)

    async def cancels(self) -> None:
        """The server gives up on the PUT, if it has come."""
        _actor.set(Actor("X"))
        await self._gate("cancels")
        if self.run.write is not None:
            self.run.write.task.cancel()

    # -- the enumeration ------------------------------------------------------------------------

    async def plays(
        self,
        *actors: Callable[[], Coroutine[Any, Any, None]],
        prepare: Callable[[], Awaitable[None]] | None = None,
        check: Callable[[Run], Awaitable[None]],
    ) -> None:
        """Run every order of the actors' gates, each on a path of its own, and check what came of it."""
        await self.cache.start()
        order: list[int] = []
        while True:
            widths = await self._one(order, actors, prepare, check)
            at = len(widths) - 1
            while at >= 0 and order[at] + 1 == widths[at]:
                at -= 1
            if at < 0:
                return
            order[at:] = [order[at] + 1]

    async def _one(self, order: list[int], actors: Any, prepare: Any, check: Any) -> list[int]:
        """Run one order, completed by first choices; how many choices there were at each step."""
        self.orders += 1
        run = self.run = Run(Stage(frozenset()), f"/item/{self.orders}")
        if prepare is not None:
            await prepare()
        run.stage = Stage(self.gates)
        tasks = [asyncio.create_task(actor()) for actor in actors]
        widths: list[int] = []
        while True:
            await settle()
            labels = sorted(run.stage.parked)
            if not labels:
                break
            if len(widths) == len(order):
                order.append(0)
            choice = order[len(widths)]
            widths.append(len(labels))
            run.stage.open(labels[choice])
        assert all(task.done() for task in tasks), f"stuck after {list(run.stage.opened_at)}"
        for task in tasks:
            task.result()
        for name, reading in run.readings.items():
            self.seen[f"{name} {reading.how}"] += 1
        await check(run)
        return widths

    def wrong(self, what: str, run: Run) -> None:
        """Note a violation with the order that led to it."""
        self.violations.append(f"{what} after {' '.join(run.stage.opened_at)}")

    async def probe(self, run: Run) -> Reading:
        """A GET after everything."""
        reading = Reading(run.stage.step + 1)
        reading.answer = await Call(self.app, http_scope("GET", run.path)).answer()
        return reading

    async def nothing_old(self, run: Run) -> None:
        """G4 and G2: who came after the purge had returned has the new value, and so has everybody from now on."""
        assert run.returned is not None
        for name, reading in run.readings.items():
            if reading.arrived > run.returned and reading.value not in (_NEW, None):
                self.wrong(f"{name} came after the purge had returned and was given the old value", run)
            self._handed_over(name, reading, run)
        for _ in range(2):
            probe = await self.probe(run)
            if probe.value != _NEW:
                self.wrong("the old value stayed", run)
        if probe.how != "hit":
            self.wrong("the new value was not kept", run)
        if self.cache._core.engine.replica._fences:
            self.wrong("a fence was left", run)

    def _handed_over(self, name: str, reading: Reading, run: Run) -> None:
        """Who waited and woke after the purge had its number is not given what began before it."""
        woke = run.stage.opened_at.get(f"{name}.wakes")
        if woke is None or run.numbered is None or woke <= run.numbered:
            return
        if reading.how == "collapsed" and reading.value == _OLD:
            self.wrong(f"{name} woke after the purge and took what began before it", run)

    def report(self, title: str, capsys: pytest.CaptureFixture[str], expected: int) -> None:
        """Print the number of orders and what was seen in them; it must be the expected number, and no violation."""
        with capsys.disabled():
            print(  # noqa: T201  # how much was run is part of the result
                f"\n{title}: {self.orders} orders, {len(self.violations)} violations; {dict(sorted(self.seen.items()))}"
            )
        assert self.orders == expected
        assert self.violations == []


@pytest.fixture
def waking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate between the moment when a waiter is told and the moment when it looks."""
    wait = Flight.wait
    theatre = _playing

    async def gated(self: Flight, seconds: float) -> Any:
        result = await wait(self, seconds)
        await theatre[-1]._gate("wakes")
        return result

    monkeypatch.setattr(Flight, "wait", gated)


_playing: list[Theatre] = []


def _theatre(gates: str, **policy: Any) -> Theatre:
    _playing[:] = [Theatre(gates, **policy)]
    return _playing[0]


_FILL = "A.arrives A.dependency A.looked-up A.handler A.has-read A.start A.body "
_PURGE = "W.writes log.before log.after "


async def test_a_fill_and_a_purge_and_a_third_request_in_every_order(waking: None, capsys: Any) -> None:
    """The fill at each of its awaits, the purge around its number; the third comes at any moment, leads, waits or hits."""
    theatre = _theatre(_FILL + _PURGE + "C.arrives C.wakes")
    await theatre.plays(
        lambda: theatre.reads("A"), theatre.purges, lambda: theatre.reads("C"), check=theatre.nothing_old
    )
    theatre.report("fill, purge, third request", capsys, 2583)
    for kind in ("A superseded", "C collapsed", "C hit", "C forwarded"):
        assert theatre.seen[kind]


async def test_a_fill_and_a_purge_and_a_waiter_that_leads_in_every_order(waking: None, capsys: Any) -> None:
    """The waiter has awaits of its own: as the leader, or after it was told to look again."""
    theatre = _theatre("A.arrives A.handler A.has-read A.start " + _PURGE + "C.arrives C.wakes C.handler C.has-read")
    await theatre.plays(
        lambda: theatre.reads("A"), theatre.purges, lambda: theatre.reads("C"), check=theatre.nothing_old
    )
    theatre.report("fill, purge, waiter that leads", capsys, 932)
    for kind in ("A collapsed", "A superseded", "C collapsed", "C superseded"):
        assert theatre.seen[kind]


async def test_a_failing_leader_and_a_purge_and_a_waiter_in_every_order(
    waking: None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader raises: the waiter leads after it, or may not use what was stored before the purge in its place."""
    monkeypatch.setattr(exchange.logger, "disabled", True)
    theatre = _theatre(
        "A.arrives A.handler A.has-read " + _PURGE + "C.arrives C.wakes C.handler C.has-read", ttl=1, stale_if_error=900
    )

    async def stored_and_stale() -> None:
        assert (await theatre.probe(theatre.run)).value == _OLD
        theatre.clock.tick(2)
        theatre.run.fails = True

    async def check(run: Run) -> None:
        assert run.numbered is not None
        for name, reading in run.readings.items():
            decided = run.stage.opened_at.get(f"{name}.has-read", run.stage.opened_at.get(f"{name}.wakes"))
            if reading.value == _OLD and decided is not None and decided > run.numbered:
                theatre.wrong(f"{name} failed after the purge and was given what it had purged", run)
        run.fails = False
        await theatre.nothing_old(run)

    await theatre.plays(
        lambda: theatre.reads("A"), theatre.purges, lambda: theatre.reads("C"), prepare=stored_and_stale, check=check
    )
    theatre.report("failing leader, purge, waiter", capsys, 518)
    for kind in ("A stale", "A failed", "C stale", "C failed"):
        assert theatre.seen[kind]


async def test_a_fill_and_a_soft_purge_in_every_order(waking: None, capsys: Any) -> None:
    """Who comes after a soft purge has returned may be given the old value, but never as fresh, and it does not last."""
    theatre = _theatre(
        "A.arrives A.handler A.has-read A.start " + _PURGE + "C.arrives C.wakes refresh.has-read",
        stale_while_revalidate=900,
    )

    async def check(run: Run) -> None:
        assert run.returned is not None
        for name, reading in run.readings.items():
            fresh = re.search(r"ttl=-\d", reading.answer.headers["cache-status"]) is None if reading.answer else True
            if reading.arrived > run.returned and reading.value == _OLD and fresh:
                theatre.wrong(f"{name} was given the old value as fresh", run)
        run.stage.gates = frozenset()
        for _ in range(2):
            probe = await theatre.probe(run)
            await settle()
        probe = await theatre.probe(run)
        if (probe.value, probe.how) != (_NEW, "hit"):
            theatre.wrong("the old value stayed", run)

    await theatre.plays(
        lambda: theatre.reads("A"), lambda: theatre.purges(soft=True), lambda: theatre.reads("C"), check=check
    )
    theatre.report("fill, soft purge, third request", capsys, 544)
    assert theatre.seen["C stale"]


async def test_a_refresh_and_a_purge_in_every_order(waking: None, capsys: Any) -> None:
    """A background refresh is a fill like any other: one that began before the purge brings nothing old back."""
    theatre = _theatre(
        "A.arrives refresh.dependency refresh.handler refresh.has-read " + _PURGE + "C.arrives C.wakes C.has-read",
        ttl=1,
        stale_while_revalidate=900,
    )

    async def stored_and_stale() -> None:
        assert (await theatre.probe(theatre.run)).value == _OLD
        theatre.clock.tick(2)

    await theatre.plays(
        lambda: theatre.reads("A"),
        theatre.purges,
        lambda: theatre.reads("C"),
        prepare=stored_and_stale,
        check=theatre.nothing_old,
    )
    theatre.report("refresh, purge, third request", capsys, 457)
    for kind in ("A stale", "A collapsed", "C hit", "C stale"):
        assert theatre.seen[kind]


_PUT = "W.arrives W.handler W.commits W.committed log.before log.after W.start "


async def test_a_fill_and_a_mutation_in_every_order(waking: None, capsys: Any) -> None:
    """Whoever comes after the mutation's response has begun has the new value, wherever a fill was meanwhile."""
    theatre = _theatre("A.arrives A.handler A.has-read " + _PUT + "C.arrives")
    await theatre.plays(
        lambda: theatre.reads("A"), theatre.mutates, lambda: theatre.reads("C"), check=theatre.nothing_old
    )
    theatre.report("fill, mutation, third request", capsys, 1061)
    for kind in ("A superseded", "C collapsed", "C hit", "C forwarded"):
        assert theatre.seen[kind]


async def test_a_fill_and_a_mutation_that_is_released_late_in_every_order(capsys: Any) -> None:
    """The hold runs out at any moment: one response, no fence left, and nothing old once the app has returned."""
    theatre = _theatre("A.arrives A.has-read W.arrives W.commits W.committed log.after W.start T.ticks C.arrives")
    purges: Counter[str] = Counter()

    async def check(run: Run) -> None:
        assert run.write is not None
        answer = Answer(run.write.messages)
        purges[f"{answer.status_code} {answer.purge}"] += 1
        await theatre.nothing_old(run)

    await theatre.plays(
        lambda: theatre.reads("A"), theatre.mutates, theatre.ticks, lambda: theatre.reads("C"), check=check
    )
    theatre.report(f"fill, mutation, end of the hold ({dict(purges)})", capsys, 2160)
    assert set(purges) == {"200 done", "200 queued"}


async def test_a_fill_and_a_cancelled_mutation_in_every_order(capsys: Any) -> None:
    """Cancelled at any moment, committed or not: once the request has ended, nobody is given what is not there."""
    theatre = _theatre("A.arrives A.has-read W.arrives W.commits W.committed log.before X.cancels C.arrives")
    ends: Counter[str] = Counter()

    async def check(run: Run) -> None:
        assert run.write is not None
        assert run.returned is not None
        ends[f"{'cancelled' if run.write.task.cancelled() else 'answered'}, value {run.value}"] += 1
        for name, reading in run.readings.items():
            if reading.arrived > run.returned and reading.value != run.value:
                theatre.wrong(f"{name} came after the end and was given what is not there", run)
        for _ in range(2):
            if (await theatre.probe(run)).value != run.value:
                theatre.wrong("what is not there stayed", run)
        if theatre.cache._core.engine.replica._fences:
            theatre.wrong("a fence was left", run)

    await theatre.plays(
        lambda: theatre.reads("A"), theatre.mutates, theatre.cancels, lambda: theatre.reads("C"), check=check
    )
    theatre.report(f"fill, cancelled mutation ({dict(ends)})", capsys, 875)
    assert len(ends) == 3


# -- the same, with one rule taken out: the enumeration must see it -------------------------------


async def test_a_fill_stamped_at_its_end_is_found_out(waking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a fill's stamp taken when it ends, some order would keep the old value."""
    theatre = _theatre("A.arrives A.handler A.has-read " + _PURGE + "C.arrives C.wakes")
    genuine: Any = vars(policy_rules)["stored_response"]

    def stamped_late(recipe: Any, *args: Any, **options: Any) -> Any:
        return genuine(
            replace(recipe, stamp=theatre.cache._core.engine.replica.stamp(options["now"])), *args, **options
        )

    monkeypatch.setattr(policy_rules, "stored_response", stamped_late)
    await theatre.plays(
        lambda: theatre.reads("A"), theatre.purges, lambda: theatre.reads("C"), check=theatre.nothing_old
    )
    assert any("the old value stayed" in violation for violation in theatre.violations)
    assert any("came after the purge had returned" in violation for violation in theatre.violations)


async def test_a_hand_over_without_its_check_is_found_out(waking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were what is handed over checked only when it is stored, waiters would take what a purge has overtaken."""
    theatre = _theatre("A.arrives A.has-read " + _PURGE + "C.arrives C.wakes")
    genuine = Flight.land

    def land(self: Flight, stored: Any) -> None:
        genuine(self, stored)
        # From here on nothing is known to have been purged.
        stored.tags = ()

    monkeypatch.setattr(Flight, "land", land)
    await theatre.plays(
        lambda: theatre.reads("A"), theatre.purges, lambda: theatre.reads("C"), check=theatre.nothing_old
    )
    assert any("woke after the purge" in violation for violation in theatre.violations)


async def test_a_purge_at_the_start_of_the_response_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the mutation purged before its commit, some order would keep the old value for good."""
    monkeypatch.setattr(Mutation, "_can_still_commit", lambda self: False)
    # What goes on behind the answer is purged once more, which would hide it.
    monkeypatch.setattr(Mutation, "_still_on", lambda self: None)
    theatre = _theatre("A.arrives A.handler A.has-read W.arrives W.commits C.arrives")
    await theatre.plays(
        lambda: theatre.reads("A"), theatre.mutates, lambda: theatre.reads("C"), check=theatre.nothing_old
    )
    assert any("the old value stayed" in violation for violation in theatre.violations)
