"""How a process reaches the servers: round trips of which every step may fail, and a subscription."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from simulation.node import REFUSED, Node, WrittenLine
from simulation.world import World

__all__ = ["Call", "Link"]

_TIMEOUT = 0.4
_LATE = 0.1

Call = Callable[..., Any]


@dataclass(slots=True, kw_only=True)
class _Trip:
    """One request on its way: what it does at the server, and who is told of the outcome.

    `awaited` is false once its sender has been told that it failed. A trip to the `log` and one to L2 may be cut off
    apart from each other. One that `writes` to the log is confirmed by the server's replicas. `late` takes a reply for
    which nobody waits any more.
    """

    epoch: int
    sent: float
    node: Node
    work: Call
    arguments: tuple[Any, ...]
    taken: Call
    failed: Call
    context: tuple[Any, ...]
    late: Call | None
    log: bool
    writes: bool
    awaited: bool = True


class Link:
    """A process as the network knows it; its life is an `epoch`, and nothing from an earlier one reaches it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = self.uid = name
        self.epoch = 0
        self.alive = False
        self.paused = False
        self.deferred: list[tuple[Call, tuple[Any, ...]]] = []
        # The server it can talk to, and the one whose messages it gets.
        self.home: Node | None = world.cluster.primary
        self.subscribed_to: Node | None = None
        self.cut_until = 0.0
        self.l2_cut_until = 0.0
        self.deaf_until = 0.0

    def __repr__(self) -> str:
        return self.name

    # -- the subscription -------------------------------------------------------------------------

    def connect(self) -> None:
        """Go to the server that is the primary now, and subscribe there."""
        world = self.world
        self.home = world.cluster.primary
        self.subscribed_to = None
        if self.alive:
            world.push(world.now + world.draws.about(0.05), self, self.subscribe, self.home)

    def subscribe(self, node: Node) -> None:
        """From here on its messages come; what was before has to be asked for."""
        if self.home is node and node.up:
            self.subscribed_to = node
            self.world.counts["subscriptions"] += 1
            self.subscribed()

    def subscribed(self) -> None:
        """Messages come from here on."""

    def unsubscribed(self) -> None:
        """The subscription has broken, and it is known."""
        self.subscribed_to = None

    def unreachable(self) -> None:
        """No server can be talked to."""
        self.home = self.subscribed_to = None

    def told(self, message: WrittenLine | str) -> None:
        """A message is on its way: a line, or the nonce of one that all others have applied."""
        world = self.world
        if world.now < self.deaf_until or world.draws.chance(world.plan.message_loss):
            world.counts["messages lost"] += 1
            return
        self._deliver(message)
        if world.draws.chance(world.plan.doubled):
            world.counts["messages doubled"] += 1
            self._deliver(message)

    def _deliver(self, message: WrittenLine | str) -> None:
        world = self.world
        delay = world.delay()
        if delay > _LATE:
            world.counts["messages late"] += 1
        world.push(world.now + delay, self, self.hear, message)

    def hear(self, message: WrittenLine | str) -> None:
        """A message has come."""

    # -- round trips ------------------------------------------------------------------------------

    def _lost(self, *, log: bool) -> bool:
        world = self.world
        cut_until = self.cut_until if log else self.l2_cut_until
        return world.now < cut_until or world.draws.chance(world.plan.command_loss)

    def request(
        self,
        work: Call,
        arguments: tuple[Any, ...],
        taken: Call,
        failed: Call,
        context: tuple[Any, ...] = (),
        *,
        late: Call | None = None,
        writes: bool = False,
        log: bool = True,
    ) -> None:
        """One round trip: `taken(result, sent, *context)`, or `failed(*context)` after a while.

        What `writes` to the log may come there twice.
        """
        world = self.world
        node = self.home if log else world.cluster.l2_node(self.home)
        now = world.now
        if node is None or self._lost(log=log):
            world.counts["requests lost"] += 1
            world.push(now + _TIMEOUT, self, failed, *context)
            return
        delay = world.delay()
        trip = _Trip(
            epoch=self.epoch,
            sent=now,
            node=node,
            work=work,
            arguments=arguments,
            taken=taken,
            failed=failed,
            context=context,
            late=late,
            log=log,
            writes=writes,
        )
        if delay >= _TIMEOUT:
            world.counts["requests late"] += 1
            self._given_up(trip)
        world.push(now + delay, None, self._arrives, trip)
        if writes and world.draws.chance(world.plan.doubled):
            world.counts["requests doubled"] += 1
            again = replace(trip, awaited=False)
            world.push(now + world.delay(), None, self._arrives, again)

    def _given_up(self, trip: _Trip) -> None:
        trip.awaited = False
        self.world.push(trip.sent + _TIMEOUT, self, trip.failed, *trip.context)

    def _arrives(self, trip: _Trip) -> None:
        world, node, there = self.world, trip.node, trip.epoch == self.epoch
        if world.now < node.stalled_until:
            if trip.awaited and there and node.stalled_until - trip.sent >= _TIMEOUT:
                self._given_up(trip)
            world.push(node.stalled_until, None, self._arrives, trip)
            return
        result = trip.work(node, *trip.arguments) if node.up else REFUSED
        if trip.writes and world.plan.confirm_replicas and result is not REFUSED:
            confirmed = world.now + world.delay()
            if trip.awaited and there and confirmed - trip.sent >= _TIMEOUT:
                self._given_up(trip)
            world.push(confirmed, None, self._confirmed, trip, result, world.now)
        else:
            self._answers(trip, result)

    def _confirmed(self, trip: _Trip, result: Any, at: float) -> None:
        """The server's replicas have acknowledged what it has written, or not, and it answers."""
        self._answers(trip, self.world.cluster.confirmed(trip.node, result, at))

    def _answers(self, trip: _Trip, result: Any) -> None:
        world = self.world
        if trip.epoch != self.epoch:
            return
        back = world.now + world.delay()
        lost = self._lost(log=trip.log)
        if lost:
            world.counts["replies lost"] += 1
        if trip.awaited and (lost or back - trip.sent >= _TIMEOUT):
            self._given_up(trip)
        if lost:
            return
        if not trip.awaited:
            if trip.late is not None and world.plan.late_replies and result is not REFUSED:
                world.counts["late replies"] += 1
                world.push(back, self, trip.late, result, trip.sent)
        elif result is REFUSED:
            world.push(back, self, trip.failed, *trip.context)
        else:
            world.push(back, self, trip.taken, result, trip.sent, *trip.context)
