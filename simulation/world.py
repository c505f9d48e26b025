"""Virtual time: what happens next, to whom, and what of it is counted and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

from fastapi_cacheinval.core.log_types import Ask, Term
from simulation.ablations import Ablation
from simulation.node import Node, WrittenLine
from simulation.plan import Plan
from simulation.response import Shared
from simulation.truth import Truth

__all__ = ["Actor", "Servers", "Told", "World"]

Purge = tuple[tuple[str, ...], bool, str]

# Woken, a process does what has waited one thing after another, and not in no time.
_A_STEP = 1e-6


class Actor(Protocol):
    """A process as time and the servers know it."""

    name: str
    uid: str
    epoch: int
    paused: bool
    deferred: list[tuple[Callable[..., Any], tuple[Any, ...]]]

    @property
    def subscribed_to(self) -> Node | None:
        """The server whose messages it gets."""
        ...

    def connect(self) -> None:
        """Go to the server that is the primary now."""
        ...

    def unsubscribed(self) -> None:
        """The subscription has broken."""
        ...

    def unreachable(self) -> None:
        """No server can be talked to."""
        ...

    def told(self, message: WrittenLine | str) -> None:
        """A message is on its way."""
        ...


class Servers(Protocol):
    """The servers as a process knows them: which to talk to, and what they can be asked."""

    primary: Node
    apart: Node | None

    def l2_node(self, home: Node | None) -> Node | None:
        """Where stored responses are."""
        ...

    def script(
        self, node: Node, who: str, ask: Ask, purge: Purge | None, applied: tuple[WrittenLine, ...] = ()
    ) -> object:
        """Heartbeat or purge."""
        ...

    def confirmed(self, node: Node, result: Any, at: float) -> object:
        """What a server answers that wrote something then, once its replicas have acknowledged that, or too few."""
        ...

    def page(self, node: Node, nonce: str, up_to: int, limit: int) -> object:
        """A page of purged tags."""
        ...

    def wait(self, node: Node, term: Term, seq: int) -> object:
        """How many replicas may not have read a line yet, and how many have."""
        ...

    def l2_get(self, node: Node, key: int) -> object:
        """What is stored under a key."""
        ...

    def l2_set(self, node: Node, key: int, shared: Shared) -> object:
        """Store something."""
        ...


class Told(NamedTuple):
    """A line of the trace; `key` is that of the response which was handed over, where it tells of one."""

    text: str
    key: int | None


class World:
    """One seed's run. An event belongs to a process, which may be paused or gone by then, or to nobody."""

    __slots__ = (
        "_pushed",
        "_queue",
        "ablation",
        "cluster",
        "counts",
        "draws",
        "hits",
        "now",
        "plan",
        "processes",
        "random",
        "reads",
        "served",
        "step",
        "trace",
        "truth",
    )

    cluster: Servers

    def __init__(self, plan: Plan, ablation: Ablation, trace: list[Told] | None = None) -> None:
        self.plan = plan
        self.ablation = ablation
        self.draws = plan.draws
        self.random = plan.draws.random
        self.trace = trace
        self.now = 0.0
        # The number of the event that is under way: it orders what happens at one moment.
        self.step = 0
        self.truth = Truth(plan.stale_when_disconnected)
        self.processes: list[Actor] = []
        self.counts: Counter[str] = Counter()
        # Reads that could have been stale, those of them that were answered from what is kept, and all reads.
        self.reads = 0
        self.hits = 0
        self.served = 0
        self._queue: list[tuple[float, int, Actor | None, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0

    def tell(self, who: str, what: str, key: int | None = None) -> None:
        """One line of the trace, about one key or all; ask whether there is a trace before the text is made."""
        if self.trace is not None:
            self.trace.append(Told(f"{self.now:10.6f} {who:9} {what}", key))

    def push(self, when: float, process: Actor | None, call: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time, unless its process has died by then; a paused one does it when it wakes."""
        self._pushed += 1
        heappush(self._queue, (when, self._pushed, process, 0 if process is None else process.epoch, call, arguments))

    def run(self) -> None:
        """Until the end, or the first violation."""
        queue, seconds, truth = self._queue, self.plan.seconds, self.truth
        while queue:
            when, _, process, epoch, call, arguments = heappop(queue)
            if when > seconds or truth.violation is not None:
                return
            self.now = when
            self.step += 1
            if process is not None:
                if process.epoch != epoch:
                    continue
                if process.paused:
                    process.deferred.append((call, arguments))
                    continue
            call(*arguments)

    def wake(self, process: Actor) -> None:
        """Let a paused process do all that has come up meanwhile, in its order or in any."""
        process.paused = False
        waiting, process.deferred = process.deferred, []
        if self.draws.chance(0.5):
            waiting.sort(key=lambda _: self.random())
        for number, (call, arguments) in enumerate(waiting):
            self.push(self.now + number * _A_STEP, process, call, *arguments)

    # -- the network ------------------------------------------------------------------------------

    def delay(self) -> float:
        """How long something is under way."""
        draws, plan = self.draws, self.plan
        if plan.slow and draws.chance(plan.slow):
            return draws.about(0.3)
        return draws.about(plan.base_delay)
