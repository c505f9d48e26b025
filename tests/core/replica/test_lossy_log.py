"""The replica against a log that loses, doubles, delays and reorders, restarts empty and is rewritten.

The world below knows the truth: the order in which fills began and purges were written, whatever the
replica has heard of it. Every hand-over is checked against that. Replicas with one rule taken out
must be caught by the same machine, or it would prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from math import inf
from random import Random
from typing import Protocol, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from fastapi_cacheinval.core.log_types import Ask, Current, LogEntry, Missed, Next, Reply, Reset, Term
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.stored import Stamp

T = TypeVar("T")

_BOUND = 6.0
_TAGS = ("a", "b", "c", "d")
_ANY_NONCE = "*"


class Violation(AssertionError):
    """The replica handed over what it must not, or refused what it may."""


@dataclass(slots=True)
class Purge:
    """One purge as it happened; `obeyed` once this replica has been told that it is done."""

    order: int
    at: float
    line: LogEntry
    obeyed: bool = False


@dataclass(slots=True)
class Filled:
    """One fill: when it began in truth, the stamp it was given, and whether it has ended."""

    order: int
    began: float
    stamp: Stamp
    tags: tuple[str, ...]
    ended: bool = False


@dataclass(slots=True)
class Answer:
    """A reply on its way back: what it answers, and the purge whose fence it lifts."""

    reply: Reply
    sent: float
    purge: Purge | None = None
    fence: int | None = None


@dataclass(slots=True)
class Log:
    """The server: one script for heartbeat and purge, as the protocol describes it."""

    nonces: count[int] = field(default_factory=lambda: count(1))
    term: Term = field(default_factory=lambda: Term(0, ""))
    lines: list[LogEntry] = field(default_factory=list)
    base: int = 0
    doubted: bool = True

    def seq(self) -> int:
        return self.base + len(self.lines)

    def nonce_at(self, seq: int) -> str:
        return self.lines[seq - self.base - 1].nonce if seq > self.base else ""

    def open_term(self, least: int) -> None:
        self.term = Term(max(self.term.number, least) + 1, f"t{next(self.nonces)}")
        self.lines, self.base, self.doubted = [], 0, False

    def append(self, tags: tuple[str, ...], *, soft: bool, at: float) -> LogEntry:
        line = LogEntry(self.term, self.seq() + 1, f"n{next(self.nonces)}", tags, soft, at)
        self.lines.append(line)
        return line

    def _broken(self, ask: Ask) -> bool:
        if self.doubted or ask.term.number > self.term.number:
            return True
        if ask.term.number < self.term.number:
            return False
        if ask.term != self.term or ask.seq > self.seq():
            return True
        return ask.seq > self.base and ask.nonce not in (_ANY_NONCE, self.nonce_at(ask.seq))

    def script(self, ask: Ask, purge: tuple[tuple[str, ...], bool, float] | None) -> tuple[Reply, LogEntry | None]:
        if self._broken(ask):
            self.open_term(ask.term.number)
        line = None if purge is None else self.append(purge[0], soft=purge[1], at=purge[2])
        # With the caller's own line trimmed away its nonce cannot be compared: that is too far behind too.
        if ask.term != self.term or 0 < ask.seq <= self.base or ask.seq < self.base:
            return Reset(self.term, self.seq(), self.nonce_at(self.seq())), line
        missed = tuple(self.lines[ask.seq - self.base :])
        return (Missed(self.term, missed) if missed else Current(self.term)), line


class Choices(Protocol):
    """Where a step takes its choices from: hypothesis, or a seeded generator."""

    def index(self, below: int) -> int:
        """A whole number from 0."""
        ...


class World:
    """One replica, one log, a bad network between them, and somebody who knows what happened."""

    replica_class: type[Replica] = Replica
    stamped_at_end = False
    disconnected = 0.0

    def __init__(self) -> None:
        self.now = 100.0
        self.orders = count()
        self.log = Log()
        self.replica = self.replica_class(
            staleness_bound=_BOUND, stale_when_disconnected=self.disconnected, most_cells=3
        )
        self.purges: list[Purge] = []
        self.fills: list[Filled] = []
        self.fences: dict[int, tuple[int, tuple[str, ...]]] = {}
        self.messages: list[LogEntry] = []
        self.asks: list[tuple[Ask, float]] = []
        self.answers: list[Answer] = []
        self.handed_over = 0

    # -- time and fills -------------------------------------------------------------------------

    def time_passes(self, choices: Choices) -> None:
        self.now += (0.5, 1.0, 2.0, _BOUND - 1)[choices.index(4)]

    def fill_begins(self, choices: Choices) -> None:
        tags = self._tags(choices)
        self.fills.append(Filled(next(self.orders), self.now, self.replica.stamp(self.now), tags))
        del self.fills[:-6]

    def fill_ends(self, choices: Choices) -> None:
        running = [fill for fill in self.fills if not fill.ended]
        if running:
            fill = running[choices.index(len(running))]
            fill.ended = True
            if self.stamped_at_end:
                fill.stamp = self.replica.stamp(self.now)

    @staticmethod
    def _tags(choices: Choices) -> tuple[str, ...]:
        first, second = _TAGS[choices.index(4)], _TAGS[choices.index(4)]
        return (first,) if first == second else (first, second)

    # -- purges ---------------------------------------------------------------------------------

    def purge_elsewhere(self, choices: Choices) -> None:
        if not self.log.doubted:
            tags = self._tags(choices)
            self._written(self.log.append(tags, soft=choices.index(3) == 0, at=self.now))

    def own_purge(self, choices: Choices) -> None:
        """Fenced until its reply is in; the reply may come at once, late or never."""
        tags, soft, fence = self._tags(choices), choices.index(3) == 0, None
        if not soft:
            fence = self.replica.fence(tags)
            self.fences[fence] = (next(self.orders), tags)
        reply, line = self.log.script(self.replica.ask(), (tags, soft, self.now))
        assert line is not None
        self.answers.append(Answer(reply, self.now, self._written(line), fence))

    def _written(self, line: LogEntry) -> Purge:
        self.messages.append(line)
        purge = Purge(next(self.orders), self.now, line)
        self.purges.append(purge)
        return purge

    # -- heartbeats, in three steps with time between them ---------------------------------------

    def heartbeat_is_sent(self, choices: Choices) -> None:
        self.asks.append((self.replica.ask(), self.now))

    def heartbeat_reaches_the_log(self, choices: Choices) -> None:
        if self.asks:
            ask, sent = self.asks.pop(choices.index(len(self.asks)))
            reply, _ = self.log.script(ask, None)
            self.answers.append(Answer(reply, sent))

    def reply_arrives(self, choices: Choices) -> None:
        if self.answers:
            answer = self._taken(self.answers, choices)
            if self.replica.apply_reply(answer.reply, answer.sent, self.now) is Next.ASK:
                self.asks.append((self.replica.ask(), self.now))
            elif answer.purge is not None:
                answer.purge.obeyed = True
                if answer.fence is not None:
                    self.replica.lift(answer.fence)
                    self.fences.pop(answer.fence, None)

    @staticmethod
    def _taken(things: list[T], choices: Choices) -> T:
        """One of what is under way, in any order; now and then it stays, to come once more."""
        at = choices.index(len(things))
        return things[at] if choices.index(4) == 0 else things.pop(at)

    def reply_is_lost(self, choices: Choices) -> None:
        if self.answers:
            del self.answers[choices.index(len(self.answers))]

    def heartbeat_at_once(self, choices: Choices) -> None:
        """Most heartbeats do work, or nothing would ever be under a live lease."""
        for _ in range(3):
            reply, _ = self.log.script(self.replica.ask(), None)
            if self.replica.apply_reply(reply, self.now, self.now) is Next.NOTHING:
                return

    # -- messages -------------------------------------------------------------------------------

    def message_arrives(self, choices: Choices) -> None:
        if self.messages and self.replica.apply_message(self._taken(self.messages, choices), self.now) is Next.ASK:
            self.asks.append((self.replica.ask(), self.now))

    def message_is_lost(self, choices: Choices) -> None:
        if self.messages:
            del self.messages[choices.index(len(self.messages))]

    # -- what happens to the log ----------------------------------------------------------------

    def log_restarts_empty(self, choices: Choices) -> None:
        """Its state is gone: whoever asks next opens a new term."""
        self.log.lines, self.log.base, self.log.doubted = [], 0, True

    def log_fails_over(self, choices: Choices) -> None:
        """Another server goes on without the last lines; its replication id tells the next script call."""
        del self.log.lines[-1 - choices.index(3) :]
        self.log.doubted = True

    def somebody_else_opens_a_term(self, choices: Choices) -> None:
        """Even one that has the number of this replica's term, though not its nonce."""
        if self.log.doubted:
            if choices.index(2) and self.replica.term.number > 0:
                self.log.term = Term(self.replica.term.number - 1, "")
            self.log.open_term(0)

    def log_is_rewritten(self, choices: Choices) -> None:
        """A roll-back that the server does not notice: the numbers are written again, the nonces are not.

        Only where this replica has read all that is lost: what nobody alive has seen, no protocol brings back.
        """
        log, replica = self.log, self.replica
        if log.doubted or not log.lines or self.asks or (replica.term, replica.applied) != (log.term, log.seq()):
            return
        lost = min(1 + choices.index(2), len(log.lines))
        del log.lines[-lost:]
        tags = self._tags(choices)
        for _ in range(lost + choices.index(2)):
            self._written(log.append(tags, soft=False, at=self.now))

    def log_is_trimmed(self, choices: Choices) -> None:
        """The stream is bounded: who is too far behind is told to start anew."""
        if len(self.log.lines) > 2:
            self.log.base += 2
            del self.log.lines[:2]

    def step(self, action: str, choices: Choices) -> None:
        """One thing happens, and then everything that is kept is asked for."""
        getattr(self, action)(choices)
        for fill in self.fills:
            if fill.ended:
                own = choices.index(4) > 0
                stamp = fill.stamp if own else fill.stamp._replace(began=-inf)
                self._check(fill, self.replica.stale_from(stamp, fill.tags, self.now), own=own)

    # -- the truth ------------------------------------------------------------------------------

    def _check(self, fill: Filled, verdict: float | None, *, own: bool) -> None:
        live = self.replica.live(self.now)
        if verdict is None:
            self._check_refusal(fill, live=live)
            return
        self.handed_over += 1
        past = self.now - _BOUND - self.disconnected
        for purge in self.purges:
            if purge.order < fill.order or not (purge.obeyed or purge.at <= past):
                continue
            if any(tag in fill.tags for tag in purge.line.tags):
                if not purge.line.soft:
                    raise Violation(f"handed over at {self.now}: {fill} in spite of {purge}")
                if verdict == inf:
                    raise Violation(f"called fresh at {self.now}: {fill} in spite of {purge}")
        for order, tags in self.fences.values():
            if order > fill.order and any(tag in fill.tags for tag in tags):
                raise Violation(f"handed over behind a fence: {fill}")
        if not live and not (own and self.now - fill.began < _BOUND):
            lapsed = self.now - self.replica.lease_until
            if lapsed >= self.disconnected:
                raise Violation(f"handed over {lapsed} s after the lease: {fill}")

    def _check_refusal(self, fill: Filled, *, live: bool) -> None:
        replica, stamp = self.replica, fill.stamp
        if not live or stamp.generation != replica.generation or stamp.as_of < replica.floor:
            return
        against = [tags for order, tags in self.fences.values() if order > fill.order]
        against += [
            purge.line.tags
            for purge in self.purges
            if not purge.line.soft and (purge.order > fill.order or purge.line.seq > stamp.as_of)
        ]
        if not any(tag in fill.tags for tags in against for tag in tags):
            raise Violation(f"refused, with nothing against it: {fill}")


class Disconnected(World):
    """The same with some seconds of grace after the lease."""

    disconnected = 1.5


_COMMON = (
    "time_passes",
    "fill_begins",
    "fill_ends",
    "purge_elsewhere",
    "own_purge",
    "heartbeat_is_sent",
    "heartbeat_reaches_the_log",
    "reply_arrives",
    "reply_is_lost",
    "heartbeat_at_once",
    "message_arrives",
    "message_is_lost",
)
_RARE = (
    "log_restarts_empty",
    "log_fails_over",
    "somebody_else_opens_a_term",
    "somebody_else_opens_a_term",
    "log_is_rewritten",
    "log_is_rewritten",
    "log_is_trimmed",
)
_ACTIONS = _COMMON * 6 + _RARE
_STEPS = 80


class Seeded:
    """Choices of a seeded generator; `random` is all it takes from it, which no version changes."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def index(self, below: int) -> int:
        return int(self._random() * below)


def _walk(world: World, seed: int) -> None:
    choices = Seeded(seed)
    for _ in range(_STEPS):
        world.step(_ACTIONS[choices.index(len(_ACTIONS))], choices)


class _Drawn:
    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def index(self, below: int) -> int:
        return self._data.draw(st.integers(0, below - 1))


class Machine(RuleBasedStateMachine):
    """The world, driven and shrunk by hypothesis."""

    world_class = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.world_class()

    @rule(action=st.sampled_from(_COMMON + _RARE), data=st.data())
    def step(self, action: str, data: st.DataObject) -> None:
        self.world.step(action, _Drawn(data))


class DisconnectedMachine(Machine):
    world_class = Disconnected


@pytest.mark.parametrize("machine", [Machine, DisconnectedMachine])
def test_hypothesis_finds_no_way_to_a_purged_response(machine: type[Machine]) -> None:
    """Within the bound of a hard purge, at once after an own one or a fence, nothing older goes out; soft ones show."""
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=40))


@pytest.mark.parametrize("kind", [World, Disconnected])
def test_no_walk_of_many_leads_to_a_purged_response(kind: type[World], capsys: pytest.CaptureFixture[str]) -> None:
    """The same over 3,000 seeded walks of 80 steps, in which responses are handed over tens of thousands of times."""
    handed_over = 0
    for seed in range(3_000):
        world = kind()
        try:
            _walk(world, seed)
        except Violation as violation:
            raise AssertionError(f"seed {seed}: {violation}") from violation
        handed_over += world.handed_over
    with capsys.disabled():
        print(f"\n{kind.__name__}: {handed_over} hand-overs in 3,000 walks, none of them wrong")  # noqa: T201
    assert handed_over > 20_000


class NoNonces(Replica):
    """Compares numbers only."""

    def ask(self) -> Ask:
        return super().ask()._replace(nonce=_ANY_NONCE)

    def apply_message(self, line: LogEntry, now: float) -> Next:
        if line.term == self.term and line.seq <= self.applied:
            return Next.NOTHING
        return super().apply_message(line, now)


class NoTermNonces(Replica):
    """Takes two terms of one number for one."""

    def apply_message(self, line: LogEntry, now: float) -> Next:
        if line.term.number == self.term.number:
            line = line._replace(term=self.term)
        return super().apply_message(line, now)

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        if isinstance(reply, Reset) and reply.term.number == self.term.number:
            self.lease_until = max(self.lease_until, sent + self.bound)
            return Next.NOTHING
        return super().apply_reply(reply, sent, now, lease=lease)


class OneRegister(Replica):
    """Keeps only the last purge of a tag."""

    def _apply(self, line: LogEntry, now: float) -> None:
        super()._apply(line, now)
        for tag in line.tags:
            if line.soft and tag in self.cells:
                self.cells[tag] = (-1, *self.cells[tag][1:])


class NoFences(Replica):
    """Waits for the number of its own purges."""

    def fence(self, tags: object) -> int:
        return super().fence(())


class NoGeneration(Replica):
    """Keeps what it has when the log begins anew."""

    def _forget_responses(self) -> None:
        self.changes += 1


class NoFloor(Replica):
    """Forgets purges without remembering that it has."""

    def _apply(self, line: LogEntry, now: float) -> None:
        super()._apply(line, now)
        self.floor = 0


class GapsDoNotMatter(Replica):
    """Applies what comes, whatever is missing before it."""

    def apply_message(self, line: LogEntry, now: float) -> Next:
        if line.term == self.term and line.seq > self.applied + 1:
            self.applied = line.seq - 1
        return super().apply_message(line, now)


class LeaseFromReceipt(Replica):
    """Counts the lease from when the reply came, not from when the request went."""

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        return super().apply_reply(reply, now, now, lease=lease)


class LeaseFromAnything(Replica):
    """Takes any message for a sign of life."""

    def apply_message(self, line: LogEntry, now: float) -> Next:
        self.lease_until = max(self.lease_until, now + self.bound)
        return super().apply_message(line, now)


class LeaseForTheLastTerm(Replica):
    """Lets a reply from a term that is over renew the lease."""

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        if reply.term.number < self.term.number:
            self.lease_until = max(self.lease_until, now + self.bound)
            return Next.NOTHING
        return super().apply_reply(reply, sent, now, lease=lease)


class NoLease(Replica):
    """Hands over whether or not it has read the log."""

    def stale_from(self, stamp: Stamp, tags: tuple[str, ...], now: float) -> float | None:
        return super().stale_from(stamp, tags, min(now, self.lease_until - 0.1))


_ABLATIONS = (
    NoNonces,
    NoTermNonces,
    OneRegister,
    NoFences,
    NoGeneration,
    NoFloor,
    GapsDoNotMatter,
    LeaseFromReceipt,
    LeaseFromAnything,
    LeaseForTheLastTerm,
    NoLease,
)


def _caught(kind: type[World]) -> bool:
    for seed in range(4_000):
        try:
            _walk(kind(), seed)
        except Violation:
            return True
    return False


@pytest.mark.parametrize("ablated", _ABLATIONS, ids=lambda ablated: ablated.__name__)
def test_each_rule_of_the_protocol_is_needed(ablated: type[Replica]) -> None:
    """A replica without this one rule hands over what it must not, and the machine sees it."""

    class Ablated(World):
        replica_class = ablated

    assert _caught(Ablated)


def test_a_stamp_from_the_end_of_the_fill_is_caught() -> None:
    """What a fill had read is known when it begins; stamped at its end it hides the purges in between."""

    class StampedAtEnd(World):
        stamped_at_end = True

    assert _caught(StampedAtEnd)
