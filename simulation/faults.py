"""What goes wrong and when: each kind of fault comes back at the rate that the plan gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from simulation.cluster import Cluster
from simulation.plan import KEYS
from simulation.process import Process
from simulation.world import World

__all__ = ["arrange"]


def arrange(world: World, cluster: Cluster, processes: Sequence[Process]) -> None:
    """Let the plan's faults begin."""
    plan = world.plan
    for process in processes:
        _recur(world, plan.pause_rate, partial(_pause, world, process))
        _recur(world, plan.cut_rate, partial(_cut, world, process))
        _recur(world, plan.deaf_rate, partial(_deafen, world, process))
        _recur(world, plan.crash_rate, process.crash)
        _recur(world, 1.0, partial(_evict, world, process))
    _recur(world, plan.server_rate / 3, cluster.restart)
    _recur(world, plan.server_rate / 3, cluster.fail_over)
    _recur(world, plan.server_rate / 3, cluster.split)
    _recur(world, plan.evict_rate, partial(_lose_a_key, world, cluster))
    _recur(world, plan.full_rate, partial(_fill_up, world, cluster))
    _recur(world, plan.stall_rate, partial(_stall, world, cluster))
    if plan.clock_jumps:
        _recur(world, 0.1, partial(_jump, world, cluster))


def _recur(world: World, rate: float, call: Callable[[], None]) -> None:
    def happen() -> None:
        call()
        world.push(world.now + world.draws.about(1.0 / rate), None, happen)

    if rate:
        world.push(world.now + world.draws.about(1.0 / rate), None, happen)


def _pause(world: World, process: Process) -> None:
    """The process stands still at the boundary of two events, and so do its timers; its clock goes on."""
    if process.paused or not process.alive:
        return
    process.paused = True
    draws, epoch = world.draws, process.epoch
    seconds = draws.pick(draws.about(0.05), draws.about(0.6), draws.between(1.5, 6.0))
    world.counts["pauses"] += 1
    world.tell(process.name, f"stands still for {seconds:.3f} s")

    def wake() -> None:
        if process.epoch == epoch:
            world.tell(process.name, "goes on")
            world.wake(process)

    world.push(world.now + seconds, None, wake)


def _cut(world: World, process: Process) -> None:
    """No command reaches the log, or the servers with stored responses neither, and messages come through or not."""
    until = process.cut_until = world.now + world.draws.about(1.5)
    world.counts["partitions"] += 1
    whole, deaf = world.draws.chance(0.5), world.draws.chance(0.6)
    if whole or world.cluster.apart is None:
        process.l2_cut_until = until
    if deaf:
        process.deaf_until = max(process.deaf_until, until)
    still = f"{'' if whole else ', still reads L2'}{'' if deaf else ', still gets messages'}"
    world.tell(process.name, f"is cut off until {until:.3f}{still}")


def _deafen(world: World, process: Process) -> None:
    """The subscription is dead without anybody noticing, or breaks and is made again."""
    draws = world.draws
    if draws.chance(0.5):
        process.deaf_until = max(process.deaf_until, world.now + draws.about(3.0))
        world.counts["subscriptions silently dead"] += 1
        world.tell(process.name, f"gets no messages until {process.deaf_until:.3f}")
    elif process.subscribed_to is not None:
        node = process.subscribed_to
        process.unsubscribed()
        world.counts["subscriptions broken"] += 1
        world.tell(process.name, "loses its subscription")
        world.push(world.now + draws.about(0.5), process, process.subscribe, node)


def _evict(world: World, process: Process) -> None:
    """Something has to make room."""
    process.kept[world.draws.number(KEYS)] = None


def _lose_a_key(world: World, cluster: Cluster) -> None:
    """One of the log's keys is gone."""
    key = world.draws.pick("state", "log", "tags", "acks")
    cluster.primary.log.lose(key)
    world.counts["keys evicted"] += 1
    world.tell(cluster.primary.name, f"loses the key {key}")


def _fill_up(world: World, cluster: Cluster) -> None:
    """For a while every write is refused, and reads are answered."""
    cluster.primary.full_until = world.now + world.draws.about(2.5)
    world.counts["full servers"] += 1
    world.tell(cluster.primary.name, "is full")


def _stall(world: World, cluster: Cluster) -> None:
    """For a while it does nothing, and then everything."""
    cluster.primary.stalled_until = world.now + world.draws.about(1.0)
    world.counts["stalled servers"] += 1
    world.tell(cluster.primary.name, "stalls")


def _jump(world: World, cluster: Cluster) -> None:
    """Its clock is set."""
    cluster.primary.clock += int(world.draws.between(-20.0, 20.0) * 1_000_000)
    world.counts["server clocks set"] += 1
    world.tell(cluster.primary.name, "has its clock set")
