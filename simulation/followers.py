"""The servers that replicate the primary: which of them follow which server, and so what they have acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi_cacheinval.core.log_types import Reply
from simulation.node import REFUSED, Node, Refused, Unconfirmed, WrittenLine
from simulation.world import World

__all__ = ["Follower", "Followers", "Result"]

Result = tuple[Reply, WrittenLine | None]


class Follower:
    """One server that follows another, from a moment on, or none."""

    __slots__ = ("follows", "name", "since")

    def __init__(self, name: str, follows: Node | None) -> None:
        self.name = name
        self.follows = follows
        self.since = 0.0


class Followers:
    """All of them. A server that has left a primary never goes back to it."""

    def __init__(self, world: World, primary: Node) -> None:
        self.world = world
        # Where they confirm nothing there is no need to know them.
        count = world.plan.servers - 1 if world.plan.confirm_replicas else 0
        self._all = [Follower(f"follower{number + 1}", primary) for number in range(count)]

    def acknowledged(self, node: Node, at: float) -> int:
        """How many had what was written to a server then, and follow it still."""
        return sum(each.follows is node and each.since <= at for each in self._all)

    def confirmed(self, node: Node, result: Result, at: float, clock: int) -> Result | Refused:
        """What a server answers that wrote something then: unless enough others have it, it has said nothing."""
        world = self.world
        count, wanted = self.acknowledged(node, at), world.plan.confirm_replicas
        reply, line = result
        if count < wanted:
            world.counts["answers not confirmed"] += 1
            if world.trace is not None:
                world.tell(node.name, f"has {count} of {wanted} confirmations")
            if world.ablation.opens_terms and line is None:
                return Unconfirmed(result)
            if not world.ablation.believes(line):
                return REFUSED
        if line is not None:
            world.truth.written(line.tags, line.written, world.now, soft=line.soft)
            heard_by, line.heard_by = line.heard_by or (), None
            for memory in heard_by:
                world.truth.numbered(memory, line.tags, line.written, world.now, soft=line.soft)
        if world.ablation.settles:
            node.log.settle(clock, reply.term.nonce)
            if line is not None and not line.settled:
                # Leases of the primary before were not known when it was written.
                line.pending = -1
        return result

    def promoted(self) -> bool:
        """One of them stops following, to become the primary; False where there is none."""
        if self._all:
            self._all.pop(self.world.draws.number(len(self._all)))
            return True
        return not self.world.plan.confirm_replicas

    def parted(self) -> list[Follower]:
        """Some are cut off from the primary, and the others, which this gives, are not."""
        stay = [each for each in self._all if self.world.draws.chance(0.5)]
        for each in self._all:
            if each not in stay:
                each.follows = None
        return stay

    def go_over(self, node: Node, late: Sequence[Follower]) -> None:
        """There is a new primary: all follow it in their time, some of them late, and the old one until then."""
        world = self.world
        for each in self._all:
            seconds = world.draws.about(2.0 if each in late else 0.2)
            world.push(world.now + seconds, None, self._leave, each, node)

    def joined(self, node: Node, name: str) -> None:
        """A server that was the primary is back, and follows the new one."""
        if self.world.plan.confirm_replicas:
            follower = Follower(name, None)
            self._all.append(follower)
            self._leave(follower, node)

    def _leave(self, follower: Follower, node: Node) -> None:
        if follower.follows is not node:
            follower.follows = None
            self.world.push(self.world.now + self.world.draws.about(0.1), None, self._follow, follower, node)

    def _follow(self, follower: Follower, node: Node) -> None:
        if self.world.cluster.primary is node:
            follower.follows, follower.since = node, self.world.now
            self.world.tell(follower.name, f"follows {node.name}")
