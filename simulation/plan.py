"""What a seed draws: the size of the world, its rates and its limits; each run is good at something else."""

from __future__ import annotations

from math import log
from random import Random
from typing import TypeVar

from fastapi_cacheinval.core.confirming import needed

__all__ = ["BOUND", "KEYS", "Draws", "Plan"]

T = TypeVar("T")

BOUND = 2.0
KEYS = 12


class Draws:
    """Chance of one seed; `random` is all that is taken from the generator, which no version of Python changes."""

    __slots__ = ("random",)

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random

    def chance(self, share: float) -> bool:
        """True in this share of the draws."""
        return self.random() < share

    def number(self, below: int) -> int:
        """A whole number from 0."""
        return int(self.random() * below)

    def between(self, low: float, high: float) -> float:
        """Anything between two numbers."""
        return low + (high - low) * self.random()

    def about(self, mean: float) -> float:
        """An exponentially distributed length of this mean."""
        return -log(1.0 - self.random()) * mean

    def pick(self, *choices: T) -> T:
        """One of the choices."""
        return choices[int(self.random() * len(choices))]


class Plan:
    """One seed's world. Rates are per second, and per process where processes have them; lengths are seconds."""

    __slots__ = (
        "apart",
        "base_delay",
        "clock_jumps",
        "coalesced_asks",
        "command_loss",
        "confirm_replicas",
        "crash_rate",
        "cut_rate",
        "deaf_rate",
        "doubled",
        "draws",
        "evict_rate",
        "fill_seconds",
        "full_rate",
        "late_replies",
        "line_tags",
        "message_loss",
        "most_bytes",
        "most_cells",
        "most_entries",
        "most_lines",
        "most_tags",
        "mutation_rate",
        "page_bytes",
        "page_limit",
        "pause_rate",
        "processes",
        "purge_waits",
        "read_rate",
        "relapses",
        "seconds",
        "server_rate",
        "servers",
        "slow",
        "stale_when_disconnected",
        "stale_while_revalidate",
        "stall_rate",
        "ttl",
    )

    def __init__(self, seed: int, seconds: float) -> None:
        draws = self.draws = Draws(seed)
        pick = draws.pick
        self.seconds = seconds
        self.processes = 2 + draws.number(4)
        self.stale_when_disconnected = pick(0.0, 0.0, 0.0, 0.0, 0.8, 3.0)
        # The network.
        self.base_delay = pick(0.0005, 0.002, 0.01)
        self.message_loss = pick(0.0, 0.02, 0.1, 0.5)
        self.command_loss = pick(0.0, 0.005, 0.05)
        self.doubled = pick(0.0, 0.02, 0.1)
        self.slow = pick(0.0, 0.02, 0.1, 0.3)
        self.late_replies = draws.chance(0.5)
        self.coalesced_asks = draws.chance(0.5)
        # Processes.
        self.pause_rate = pick(0.0, 0.02, 0.1, 0.3)
        self.cut_rate = pick(0.0, 0.02, 0.1, 0.3)
        self.deaf_rate = pick(0.0, 0.02, 0.1, 0.3)
        self.crash_rate = pick(0.0, 0.01, 0.05, 0.2)
        # The server.
        self.server_rate = pick(0.0, 0.05, 0.15, 0.4, 1.0)
        self.evict_rate = pick(0.0, 0.0, 0.05, 0.2)
        self.full_rate = pick(0.0, 0.0, 0.05, 0.2)
        self.stall_rate = pick(0.0, 0.02, 0.1)
        self.relapses = pick(0.0, 0.3, 0.8)
        self.clock_jumps = draws.chance(0.3)
        self.apart = draws.chance(0.5)
        # The app.
        self.mutation_rate = pick(1.0, 2.0, 4.0, 8.0)
        # A clock that is set makes the server count acknowledgements wrongly; more than a wait does not depend on it.
        self.purge_waits = 0.0 if self.clock_jumps or self.stale_when_disconnected else 0.2
        # Where few ask, what is outdated stays in L2 for longer.
        self.read_rate = pick(3.0, 20.0, 40.0, 80.0)
        self.fill_seconds = pick(0.01, 0.05, 0.2)
        self.ttl = pick(3.0, 8.0, 20.0)
        self.stale_while_revalidate = pick(0.0, 5.0)
        # Limits, mostly so low that they are met.
        self.most_lines = pick(4, 15, 1000)
        self.most_tags = pick(6, 1000, 1000)
        self.most_cells = pick(5, 1000, 1000)
        self.most_entries = pick(2, 1000)
        self.page_limit = pick(3, 100)
        # A purge of more tags than this is several lines; the log, and a page of it, by size, where each line is 1.
        pick = Draws(-1 - seed).pick
        self.line_tags = pick(1, 2, 1000)
        self.most_bytes = pick(8, 40, 100_000)
        self.page_bytes = pick(1, 3, 1000)
        # How many servers there are, and how many of them have to acknowledge what the primary says.
        draws = Draws(-1_000_000_007 - seed)
        self.servers = draws.pick(3, 3, 4, 5)
        self.confirm_replicas = needed(self.servers) if draws.chance(0.3) else 0
