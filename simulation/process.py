"""One process: it reads, it writes, it crashes and is started again."""

from __future__ import annotations

from functools import partial

from fastapi_cacheinval.core.tags import ALL
from simulation.fencing import Purge
from simulation.node import WrittenLine
from simulation.plan import KEYS
from simulation.reader import Reader
from simulation.truth import TAGS
from simulation.world import World

__all__ = ["Process"]


class Mutation:
    """A write of some rows, what it purges, and the versions that it has made."""

    __slots__ = ("fence", "keys", "soft", "tags", "versions", "wait")

    def __init__(self, keys: tuple[int, ...], tags: tuple[str, ...], *, soft: bool, wait: bool) -> None:
        self.keys = keys
        self.tags = tags
        self.soft = soft
        self.wait = wait
        self.versions: tuple[int, ...] = ()
        self.fence: int | None = None


class Process(Reader):
    """The whole of it."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._start()

    def _start(self) -> None:
        world = self.world
        draws, now = world.draws, world.now
        if self.home is not None:
            world.push(now, self, self.subscribe, self.home)
        world.push(now + draws.about(0.3), self, self.tick)
        world.push(now + draws.about(0.1), self, self.requests)
        world.push(now + draws.about(1.0), self, self.mutate)

    def crash(self) -> None:
        """All that it knew is gone; after a while it is started again."""
        world = self.world
        if not self.alive:
            return
        world.counts["crashes"] += 1
        world.tell(self.name, "crashes")
        self.epoch += 1
        self.alive = self.paused = False
        self.deferred = []
        self.subscribed_to = None
        self.memory.crashed()
        world.push(world.now + world.draws.about(0.7), None, self._restarted)

    def _restarted(self) -> None:
        self.begin()
        self.world.tell(self.name, f"starts as {self.uid}")
        self._start()

    # -- mutations --------------------------------------------------------------------------------

    def mutate(self) -> None:
        """A client writes."""
        world, draws = self.world, self.world.draws
        world.push(world.now + draws.about(len(world.processes) / world.plan.mutation_rate), self, self.mutate)
        first = draws.number(KEYS)
        keys = (first, draws.number(KEYS)) if draws.chance(0.2) else (first,)
        tags = tuple({TAGS[key][0]: None for key in keys})
        if draws.chance(0.2):
            tags = (*tags, draws.pick(*TAGS[first][1:3]))
        elif draws.chance(0.03):
            tags = (ALL,)
        soft = draws.chance(0.2)
        mutation = Mutation(keys, tags, soft=soft, wait=not soft and draws.chance(world.plan.purge_waits))
        world.truth.writing(keys, world.now)
        if not soft and draws.chance(0.1):
            self._release_late(mutation)
        else:
            world.push(world.now + draws.about(0.02), self, self._commit, mutation)

    def _release_late(self, mutation: Mutation) -> None:
        """Its response goes out before its commit: purged and fenced now, and purged again after it."""
        world = self.world
        world.counts["late purges"] += 1
        mutation.fence = self.fence(mutation.tags)
        self.purge(Purge(mutation.tags, self._released, self._released))
        world.push(world.now + world.draws.about(0.3), self, self._commit, mutation)

    def _released(self, lines: tuple[WrittenLine, ...] = ()) -> None:
        """The commit is still to come, so nothing has been promised yet."""

    def _commit(self, mutation: Mutation) -> None:
        world = self.world
        world.truth.committed(mutation.keys, world.now)
        mutation.versions = tuple(len(world.truth.commits[key]) for key in mutation.keys)
        if world.trace is not None:
            versions = ", ".join(f"{key} v{v}" for key, v in zip(mutation.keys, mutation.versions, strict=True))
            world.tell(self.name, f"commits {versions}, purges {' '.join(mutation.tags)}")
        done, failed = partial(self._purged, mutation), partial(self._queued, mutation)
        self.purge(Purge(mutation.tags, done, failed, soft=mutation.soft, prompt=mutation.wait))

    def _purged(self, mutation: Mutation, lines: tuple[WrittenLine, ...]) -> None:
        world = self.world
        world.counts["purges done"] += 1
        if mutation.fence is not None:
            self.lift(mutation.fence)
        self._acknowledge(mutation, done=True)
        if mutation.wait:
            self._expect(lines)

    def _queued(self, mutation: Mutation) -> None:
        earlier = mutation.fence
        if not mutation.soft:
            mutation.fence = self.fence(mutation.tags)
        if earlier is not None:
            # It let through what was filled between the release and the commit.
            self.lift(earlier)
        self.queue(mutation.tags, soft=mutation.soft, fence=mutation.fence)
        self._acknowledge(mutation, done=False)

    def _acknowledge(self, mutation: Mutation, *, done: bool) -> None:
        world, memory = self.world, self.memory
        world.truth.writing(mutation.keys, world.now)
        if world.trace is not None:
            world.tell(self.name, f"acknowledges the write of {mutation.keys}: {'done' if done else 'queued'}")
        for key, version in zip(mutation.keys, mutation.versions, strict=True):
            if not mutation.soft:
                memory.acked[key] = max(memory.acked[key], version)
                if done:
                    memory.numbered[key] = max(memory.numbered[key], version)
            world.truth.moved[key] = world.now
            # The client looks at what it has written.
            self.read(key, 1)
            world.push(world.now + world.draws.about(0.005), self, self.read, key, 1)

    def _expect(self, lines: tuple[WrittenLine, ...]) -> None:
        """Wait for the word of all others, and for the log's where that does not come."""
        last = lines[-1]
        if last.pending < 0:
            self._wait(lines)
        elif not last.pending or last.nonce in self.early:
            self._everywhere(lines)
        else:
            self.expected[last.nonce] = lines
            self.world.push(self.world.now + 0.05, self, self._doubted, last.nonce)

    def applied_by_all(self, nonce: str) -> None:
        lines = self.expected.pop(nonce, None)
        if lines is None:
            self.early.add(nonce)
        else:
            self._everywhere(lines)

    def _everywhere(self, lines: tuple[WrittenLine, ...]) -> None:
        self.world.counts["words of every replica"] += 1
        for line in lines:
            self.world.truth.read_everywhere(line.tags, line.written, self.world.now)

    def _doubted(self, nonce: str) -> None:
        lines = self.expected.pop(nonce, None)
        if lines is not None:
            self._wait(lines)

    def _wait(self, lines: tuple[WrittenLine, ...]) -> None:
        asked = (lines[-1].term, lines[-1].seq)
        self.request(self.world.cluster.wait, asked, self._waited, self._not_waited, (lines,))

    def _waited(self, result: tuple[int, int], sent: float, lines: tuple[WrittenLine, ...]) -> None:
        world = self.world
        if result[0] == 0:
            world.counts["waits for every replica"] += 1
            for line in lines:
                world.truth.read_everywhere(line.tags, line.written, world.now)
        elif world.now < lines[-1].written + 3.0:
            world.push(world.now + 0.02, self, self._wait, lines)

    def _not_waited(self, lines: tuple[WrittenLine, ...]) -> None:
        """Nobody was told anything."""
