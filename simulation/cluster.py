"""The servers: one that takes writes, what becomes of it, and who talks to which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi_cacheinval.core.log_types import Ask, Current, Missed, Reply, Reset, Term
from simulation.answers import Answer, PageAnswer, Written
from simulation.followers import Follower, Followers, Result
from simulation.node import REFUSED, Node, Refused, WrittenLine
from simulation.plan import BOUND
from simulation.response import Shared
from simulation.server import LogServer
from simulation.truth import keys_of
from simulation.world import World

__all__ = ["Cluster"]

_MICROS = 1_000_000


class Cluster:
    """The primary and how it is replaced; at most one such thing is under way at a time."""

    __slots__ = ("_busy", "_fresh", "_nodes", "apart", "followers", "primary", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self._fresh = 0
        self._nodes = 0
        self._busy = False
        self.apart = Node("shard", self._log(), {}) if world.plan.apart else None
        self.primary = self._node(self._log(), {})
        self.followers = Followers(world, self.primary)

    def _node(self, log: LogServer, l2: dict[int, Shared]) -> Node:
        self._nodes += 1
        name = f"server{self._nodes}"
        return Node(name, log.copy(f"run{self._nodes}"), dict(l2))

    def _log(self) -> LogServer:
        log = LogServer("", self._line, lambda _: 1)
        log.trusts_young = not self.world.ablation.young
        return log

    def _line(self, written: Written) -> WrittenLine:
        tags, soft, waiter = written.payload
        term = Term(written.term, written.term_nonce)
        line = WrittenLine(term, written.seq, written.nonce, tags, soft, written.at / _MICROS, (), bool(waiter))
        line = line._replace(waiter=waiter)
        line.written = self.world.now
        return line

    # -- what a server is asked -------------------------------------------------------------------

    def script(
        self,
        node: Node,
        who: str,
        ask: Ask,
        purge: tuple[tuple[str, ...], bool, str] | None,
        applied: tuple[WrittenLine, ...] = (),
    ) -> tuple[Reply, WrittenLine | None] | Refused:
        """Heartbeat or purge: the reply, and the line that was written; a full or lonely server refuses both.

        The last part of a purge is who waits for every replica; of what is `applied` a heartbeat tells.
        """
        world = self.world
        now, plan = world.now, world.plan
        world.counts["calls of the script"] += 1
        if now >= node.refuses_from or now < node.full_until:
            world.counts["calls refused by the server"] += 1
            return REFUSED
        self._fresh += 1
        tags, soft = ((), False) if purge is None else purge[:2]
        log = node.log
        term = log.state.term if log.state is not None else 0
        fresh = f"n{self._fresh}" if world.ablation.nonces else ""
        pending = tuple((line.waiter, line.nonce) for line in applied)
        if purge is not None:
            pending = ((who, fresh),) if purge[2] else ()
        answer = log.script(
            self.clock(node),
            replica=who,
            term=ask.term.number,
            term_nonce=ask.term.nonce,
            seq=ask.seq,
            nonce=ask.nonce,
            fresh=fresh,
            bound=int(BOUND * _MICROS),
            most_lines=plan.most_lines,
            most_bytes=plan.most_bytes,
            page_bytes=plan.page_bytes,
            most_tags=plan.most_tags,
            life=int(plan.ttl + plan.stale_while_revalidate) + 1,
            soft=soft,
            payload=purge,
            tags=tags,
            pending=pending,
        )
        if answer.term != term:
            world.counts["terms opened"] += 1
            if world.trace is not None:
                world.tell(node.name, f"opens term {answer.term} {answer.term_nonce} for {who}, who read {ask}")
        line: WrittenLine | None = log.published
        if line is not None:
            line.pending = answer.pending
            line.settled = log.state is not None and log.state.settled
            self._written(node, line, who)
        for waiter, nonce in log.told:
            self._tell(node, waiter, nonce)
        if answer.more:
            world.counts["replies with more to read"] += 1
        return self._reply(Term(answer.term, answer.term_nonce), answer, line), line

    def l2_get(self, node: Node, key: int) -> Shared | None:
        """What is stored under a key."""
        return node.l2.get(key)

    def l2_set(self, node: Node, key: int, shared: Shared) -> Refused | None:
        """Store something; a full or lonely server takes nothing."""
        if self.world.now >= node.refuses_from or self.world.now < node.full_until:
            return REFUSED
        node.l2[key] = shared
        return None

    @staticmethod
    def _reply(term: Term, answer: Answer, line: WrittenLine | None) -> Reply:
        if answer.verdict == 2:
            return Reset(term, answer.seq, answer.nonce)
        own = () if line is None or answer.more else (line,)
        missed = (*answer.missed, *own)
        return Missed(term, missed, more=answer.more) if missed else Current(term)

    def confirmed(self, node: Node, result: Result, at: float) -> Result | Refused:
        """What a server answers that wrote something then."""
        return self.followers.confirmed(node, result, at, self.clock(node))

    def _written(self, node: Node, line: WrittenLine, who: str) -> None:
        world = self.world
        if not world.plan.confirm_replicas:
            world.truth.written(line.tags, world.now, world.now, soft=line.soft)
        else:
            line.heard_by = []
        world.counts["lines written"] += 1
        if line.soft:
            world.counts["soft purges"] += 1
        if world.trace is not None:
            kind = "soft" if line.soft else "hard"
            world.tell(node.name, f"writes line {line.term.number}/{line.seq} {kind} {' '.join(line.tags)} for {who}")
        if world.ablation.deletes:
            for key in keys_of(line.tags):
                (self.apart or node).l2.pop(key, None)
        for process in world.processes:
            if process.subscribed_to is node:
                process.told(line)

    def _tell(self, node: Node, waiter: str, nonce: str) -> None:
        """The last of the others has applied a line."""
        for process in self.world.processes:
            if process.subscribed_to is node and process.uid == waiter:
                process.told(nonce)

    def clock(self, node: Node) -> int:
        """What the server takes for the time, in microseconds."""
        return int(self.world.now * _MICROS) + node.clock + 1_000_000_000

    def l2_node(self, home: Node | None) -> Node | None:
        """Where stored responses are: on the same server, or on another of a cluster, which outlives it."""
        return home if self.apart is None else self.apart

    def page(self, node: Node, nonce: str, up_to: int, limit: int) -> PageAnswer | None:
        """A page of purged tags."""
        return node.log.page(nonce, up_to, limit)

    def wait(self, node: Node, term: Term, seq: int) -> tuple[int, int]:
        """How many replicas may not have read a line yet, and how many have."""
        return node.log.wait(self.clock(node), term.number, term.nonce, seq, int(BOUND * _MICROS))

    # -- what becomes of it -----------------------------------------------------------------------

    def restart(self) -> None:
        """The server comes back after a while: empty, with what it had saved some time ago, or with everything."""
        if self._busy:
            return
        self._busy = True
        draws, world, node = self.world.draws, self.world, self.primary
        kept = draws.pick("empty", "rolled back", "whole")
        log, l2 = self._log(), {}
        lag = 0.0
        if kept == "rolled back":
            log, l2, lag = node.log.copy(""), dict(node.l2), draws.between(0.0, 3.0)
        world.push(world.now + lag, None, self._down, node, kept, log, l2)

    def _down(self, node: Node, kept: str, log: LogServer, l2: dict[int, Shared]) -> None:
        world = self.world
        node.up = False
        if kept == "whole":
            log, l2 = node.log.copy(""), dict(node.l2)
        world.counts[f"server restarts, {kept}"] += 1
        world.tell(node.name, f"goes down, to come back {kept}")
        for process in world.processes:
            if process.subscribed_to is node:
                process.unsubscribed()
        world.push(world.now + world.draws.about(0.3), None, self._promoted, self._node(log, l2), None, 0.1)

    def fail_over(self) -> None:
        """The server dies, and one that replicates it with some lag takes its place."""
        if self._busy or not self.followers.promoted():
            return
        self._busy = True
        draws, world, node = self.world.draws, self.world, self.primary
        standby = self._node(node.log, node.l2)
        world.push(world.now + draws.between(0.0, 1.0), None, self._dies, node, standby)

    def _dies(self, node: Node, standby: Node) -> None:
        world = self.world
        node.up = False
        world.counts["failovers"] += 1
        world.tell(node.name, f"dies; {standby.name} has what it had some time ago")
        for process in world.processes:
            if process.subscribed_to is node:
                process.unsubscribed()
        world.push(world.now + world.draws.about(1.0), None, self._promoted, standby, None, world.draws.pick(0.3, 1.5))
        world.push(world.now + 4.0, None, self._returns, node)

    def split(self) -> None:
        """The server is cut off together with some processes, and another takes its place for the rest."""
        if self._busy or not self.followers.promoted():
            return
        self._busy = True
        draws, world, node = self.world.draws, self.world, self.primary
        standby = self._node(node.log, node.l2)
        world.push(world.now + draws.between(0.0, 0.5), None, self._isolated, node, standby)

    def _isolated(self, node: Node, standby: Node) -> None:
        world, draws = self.world, self.world.draws
        promoted = draws.between(0.3, 4.0)
        if world.ablation.refusal and not world.plan.confirm_replicas:
            # It must have stopped taking writes when the other begins to.
            node.refuses_from = world.now + promoted * draws.between(0.1, 0.99)
        there = [process for process in world.processes if draws.chance(0.5)]
        world.counts["split brains"] += 1
        names = ", ".join(process.name for process in there) or "nobody"
        world.tell(node.name, f"is cut off with {names}; {standby.name} will take its place")
        for process in world.processes:
            if process not in there:
                process.unreachable()
        late = self.followers.parted()
        world.push(world.now + promoted, None, self._promoted, standby, there, 0.3, late)
        world.push(world.now + promoted + draws.about(4.0), None, self._healed, node, there)

    def _promoted(self, node: Node, elsewhere: list[Any] | None, notice: float, late: Sequence[Follower] = ()) -> None:
        world = self.world
        self.primary = node
        self.followers.go_over(node, late)
        world.tell(node.name, "is the primary from now on")
        for process in world.processes:
            if elsewhere is None or process not in elsewhere:
                world.push(world.now + world.draws.about(notice), None, process.connect)
        if elsewhere is not None:
            return
        self._busy = False
        if world.draws.chance(world.plan.relapses):
            # Before it has saved anything: it comes back as it has just begun.
            self._busy = True
            world.counts["relapses"] += 1
            log, l2 = node.log.copy(""), dict(node.l2)
            world.push(world.now + world.draws.about(0.7), None, self._down, node, "rolled back", log, l2)

    def _healed(self, node: Node, there: list[Any]) -> None:
        world = self.world
        node.refuses_from = 0.0
        world.tell(node.name, "is no longer cut off, and takes no more writes")
        self._returns(node)
        for process in there:
            world.push(world.now + world.draws.about(0.3), None, process.connect)
        self._busy = False

    def _returns(self, node: Node) -> None:
        self.followers.joined(self.primary, node.name)
