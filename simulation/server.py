"""The scripts of `fastapi_cacheinval.bus.script` as plain Python: every reply and every piece of state.

`tests/engine/test_script_model.py` compares the two. Times are microseconds of the server's clock and come in as
arguments; what a line looks like is the caller's choice, so that a simulation need not pack and unpack it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from simulation.answers import Answer, Member, PageAnswer, State, Written

__all__ = ["LogServer"]


class LogServer:
    """One server's part of the log; `run` is its replication id, empty where the caller may not read it.

    `message` makes a message of a line, and `size` says how large one is.
    """

    __slots__ = (
        "acks",
        "acks_of",
        "base",
        "log",
        "message",
        "pending",
        "published",
        "run",
        "size",
        "state",
        "tags",
        "tags_of",
        "told",
        "trusts_young",
    )

    def __init__(self, run: str, message: Callable[[Written], Any], size: Callable[[Any], int] = len) -> None:
        self.run = run
        self.message = message
        self.size = size
        self.published: Any = None
        self.state: State | None = None
        # The number before the first line that is kept, and the lines: nonce and message.
        self.base = 0
        self.log: list[tuple[str, Any]] = []
        self.tags: dict[Member, int] = {}
        self.tags_of: str | None = None
        self.acks: dict[str, tuple[int, int, int]] = {}
        self.acks_of: str | None = None
        # Who is still to say that it has applied a line, by whatever names that; what is told, because nobody is.
        self.pending: dict[Any, set[str]] = {}
        self.told: list[Any] = []
        # Whether it believes that all leases are known in a term that has just begun: to see that it must not.
        self.trusts_young = False

    # -- what befalls a server --------------------------------------------------------------------

    def copy(self, run: str) -> LogServer:
        """What another life of this server, or a server that replicates it, knows by now."""
        twin = LogServer(run, self.message, self.size)
        twin.state = None if self.state is None else replace(self.state)
        twin.base, twin.log = self.base, list(self.log)
        twin.tags, twin.tags_of = dict(self.tags), self.tags_of
        twin.acks, twin.acks_of = dict(self.acks), self.acks_of
        twin.trusts_young = self.trusts_young
        twin.pending = {name: set(left) for name, left in self.pending.items()}
        return twin

    def lose(self, key: str) -> None:
        """One of the keys is evicted or deleted."""
        if key == "state":
            self.state = None
        elif key == "log":
            self.base, self.log = 0, []
        elif key == "tags":
            self.tags, self.tags_of = {}, None
        else:
            self.acks, self.acks_of = {}, None

    # -- the script -------------------------------------------------------------------------------

    def script(
        self,
        now: int,
        *,
        replica: str,
        term: int,
        term_nonce: str,
        seq: int,
        nonce: str,
        fresh: str,
        bound: int,
        widest: int = 0,
        most_lines: int,
        most_bytes: int,
        page_bytes: int,
        most_tags: int,
        life: int,
        soft: bool = False,
        payload: Any = None,
        tags: Iterable[Any] = (),
        pending: Sequence[Any] = (),
    ) -> Answer:
        """Heartbeat and purge in one.

        `published` is the message that subscribers get, or None; `told` names the lines that all have applied by now.
        """
        before = self.state
        pruned = now if before is None else before.pruned
        longest = 0 if before is None else before.life
        widest = max(widest, bound if replica else 0, 0 if before is None else before.widest)
        if self._broken(term, term_nonce, seq, nonce):
            state = self._open(now, max(term, 0 if before is None else before.term) + 1, fresh, life)
        else:
            assert before is not None
            state = before
            if self.run and not state.run:
                state.run = self.run
        state.widest = widest
        ours = state.term == term and state.term_nonce == term_nonce

        behind = max(0, state.seq - seq) if ours else 0
        complete, missed = self._missed(seq, behind, page_bytes)
        more = len(missed) < behind

        self.published = None
        if payload is not None:
            self._append(state, now, payload, fresh, [(soft, tag) for tag in tags])
            self._trim(state, most_lines, most_bytes)
        awaited, prune = payload is not None and bool(pending), not pruned <= now < pruned + 10 * bound
        if awaited or prune:
            self._set_back(state, now)
        left = self._await(state, now, bound, replica, pending[0]) if awaited else -1
        if prune:
            state.pruned = now
            self.acks = {name: ack for name, ack in self.acks.items() if now <= ack[1] + 10 * ack[2]}
        self.told = []
        if replica:
            self.acks[replica] = (seq if ours else -1, now, bound)
            if ours and payload is None:
                self._leave(replica, pending)
        over = 0 if payload is None else len(self.tags) - most_tags
        self._forget(state, now, over, life, longest)

        verdict = 2 if not ours or not complete or (more and not missed) else int(bool(missed))
        given = tuple(missed) if verdict == 1 else ()
        return Answer(verdict, state.term, state.term_nonce, state.seq, state.nonce, now, given, more, left, widest)

    def _missed(self, seq: int, behind: int, page_bytes: int) -> tuple[bool, list[Any]]:
        """Whether the log still has all of so many messages after a number, and a page of them."""
        missed: list[Any] = []
        read, size = seq - self.base, 0
        complete = not behind or (len(self.log) > read and (read > 0 or (read == 0 and seq == 0)))
        while complete and len(missed) < behind and size < page_bytes:
            message = self.log[read + len(missed)][1]
            missed.append(message)
            size += self.size(message)
        return complete, missed

    def _set_back(self, state: State, now: int) -> None:
        """What is later than now is from before the clock was set back, and lasts no longer than from now."""
        state.opened = min(state.opened, now)
        self.acks = {name: (read, min(seen, now), length) for name, (read, seen, length) in self.acks.items()}

    def _await(self, state: State, now: int, bound: int, replica: str, name: Any) -> int:
        if now <= state.opened + max(bound, state.widest) and not self.trusts_young:
            return -1
        live = {other for other, (_, seen, length) in self.acks.items() if other != replica and now <= seen + length}
        if live:
            self.pending[name] = self.pending.get(name, set()) | live
        return len(live)

    def _leave(self, replica: str, names: Iterable[Any]) -> None:
        for name in names:
            left = self.pending.get(name, set())
            if replica in left:
                left.remove(replica)
                if not left:
                    del self.pending[name]
                    self.told.append(name)

    def _broken(self, term: int, term_nonce: str, seq: int, nonce: str) -> bool:
        state = self.state
        if state is None:
            return True
        if self.run and state.run and self.run != state.run:
            return True
        if self.tags_of != state.term_nonce or self.acks_of != state.term_nonce:
            return True
        if term < state.term:
            return False
        if term != state.term or term_nonce != state.term_nonce or seq > state.seq:
            return True
        if seq == state.seq:
            return nonce != state.nonce
        at = seq - self.base
        return 0 < at <= len(self.log) and self.log[at - 1][0] != nonce

    def _open(self, now: int, term: int, fresh: str, life: int) -> State:
        self.base, self.log = 0, []
        self.tags, self.tags_of = {}, fresh
        self.acks, self.acks_of = {}, fresh
        self.state = State(term, fresh, 0, fresh, self.run, 0, 0, now, life, now, now)
        return self.state

    def _append(self, state: State, now: int, payload: Any, fresh: str, members: list[Member]) -> None:
        if not self.log:
            self.base = state.seq
        state.seq, state.nonce = state.seq + 1, fresh
        message = self.message(Written(state.term, state.term_nonce, state.seq, fresh, now, payload))
        self.log.append((fresh, message))
        for member in members:
            self.tags[member] = state.seq
        self.published = message

    def _trim(self, state: State, most_lines: int, most_bytes: int) -> None:
        first = self.base + max(0, len(self.log) - most_lines)
        state.filled += self.size(self.published)
        if state.filled * 8 >= most_bytes:
            state.eighths, state.filled = (*state.eighths, state.seq), 0
            if len(state.eighths) == 8:
                first = state.eighths[0]
                state.eighths = state.eighths[1:]
        over = first - self.base
        if over > 0:
            del self.log[:over]
            self.base += over

    def _forget(self, state: State, now: int, over: int, life: int, longest: int) -> None:
        state.life = max(life, state.life)
        due = not state.marked <= now < state.marked + max(life, longest) * 1_000_000
        if over <= 0 and not due:
            return
        limit = state.seq if over > 0 else state.mark
        old = sorted((seq, member) for member, seq in self.tags.items() if seq <= limit)
        del old[min(over, 1000) if over > 0 else 1000 :]
        for seq, member in old:
            del self.tags[member]
            state.floor = max(state.floor, seq)
        if due and over <= 0 and len(old) < 1000:
            state.floor = max(state.floor, state.mark)
            state.mark, state.marked = state.seq, now

    # -- what else is asked -----------------------------------------------------------------------

    def page(self, term_nonce: str, up_to: int, limit: int) -> PageAnswer | None:
        """The tags of the lines up to and including `up_to`, newest first, at most `limit`; None in another term."""
        state = self.state
        if state is None or self.tags_of != term_nonce:
            return None
        floor = state.floor
        span = sorted(((seq, member) for member, seq in self.tags.items() if floor < seq <= up_to), reverse=True)
        return PageAnswer(floor, state.seq, tuple((member, seq) for seq, member in span[:limit]))

    def settle(self, now: int, term_nonce: str) -> None:
        """Have a term begin now for those who wait, unless that was said of it before."""
        state = self.state
        if state is not None and state.term_nonce == term_nonce and not state.settled:
            state.opened, state.settled = now, True

    def wait(self, now: int, term: int, term_nonce: str, seq: int, bound: int) -> tuple[int, int]:
        """How many replicas may not have read this line yet, and how many have."""
        state = self.state
        if state is None or self.acks_of != state.term_nonce or (self.run and state.run and self.run != state.run):
            return 1, 0
        same = state.term == term and state.term_nonce == term_nonce
        behind, there = int(now <= state.opened + max(bound, state.widest)), 0
        for read, seen, length in self.acks.values():
            if now <= seen + length:
                if same and read < seq:
                    behind += 1
                else:
                    there += 1
        return behind, there
