"""Clients that read and write through chosen replicas, and record what they see."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from chaos.app import ROWS
from chaos.authority import Authority
from chaos.cdn import CDN
from chaos.client import Address, Answer, Connection, Lost
from chaos.events import Events
from chaos.history import Commit, History, Outcome, Probe, Read, Write

__all__ = ["Load"]

# Seconds that a client waits for an answer, and between two requests.
_PATIENCE = 1.5
_READ_PAUSE, _WRITE_PAUSE, _PROBE_PAUSE = (0.0, 0.02), (0.05, 0.35), 0.1
_READERS, _WRITERS = 6, 2
_ABANDONED_SHARE = 0.02
_KINDS = ("/rows/{row}", "/brief/{row}", "/pairs/{row}/{other}", "/spoken/{row}", "/rows", "/slow/{row}")
_WRITES = (
    ("PUT", "/rows/{row}?", _PATIENCE),
    ("PATCH", "/rows/{row}?", _PATIENCE),
    ("POST", "/imports/{row}?", _PATIENCE),
    # This purge waits for every replica, four bounds at most.
    ("POST", "/imports/{row}?wait=1&", 4 * _PATIENCE),
)
_WRITE_WEIGHTS = (12, 1, 1, 2)
_KIND_WEIGHTS = (9, 3, 3, 2, 1, 1)
# Clients read and write a few rows far more often than the others.
_ROW_WEIGHTS = [1 / (1 + row) for row in range(ROWS)]


class Load:
    """Clients of the replicas at these addresses; `history` records what they see."""

    def __init__(self, addresses: Sequence[Address], authority: Authority, events: Events, cdn: CDN, seed: str) -> None:
        self.history = History()
        self.cdn = cdn
        self._events = events
        self._addresses = addresses
        self._authority = authority
        self._seed = seed
        self._numbers = count(1)
        self._written: list[tuple[int, Callable[[Commit | None], Write]]] = []
        self._unanswered: Counter[str] = Counter()
        self._going = True

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """The coroutines to run side by side until `stop()`."""
        work: list[Coroutine[Any, Any, None]] = []
        for replica in range(len(self._addresses)):
            work += [self._reads(replica, random.Random(f"{self._seed} r{replica}.{n}")) for n in range(_READERS)]
            work += [self._writes(replica, random.Random(f"{self._seed} w{replica}.{n}")) for n in range(_WRITERS)]
            work.append(self._probes(replica))
            work.append(self._reads_through_cdn(replica, random.Random(f"{self._seed} c{replica}")))
        return [*work, self._writes_of_another(random.Random(f"{self._seed} o"))]

    def stop(self) -> None:
        """Let every client end after its current request."""
        self._going = False

    def finished(self) -> History:
        """The history, once the clients have ended. The outcome of some writes is unknown before that."""
        commits = self._authority.commits
        self.history.writes = [write(commits.get(number)) for number, write in self._written]
        self.history.unanswered = dict(self._unanswered)
        return self.history

    # -- reading --------------------------------------------------------------------------------

    async def _reads(self, replica: int, draw: random.Random) -> None:
        connection = Connection(self._addresses[replica])
        while self._going:
            await self._read(connection, replica, draw, self._path(draw))
            await asyncio.sleep(draw.uniform(*_READ_PAUSE))
        connection.close()

    @staticmethod
    def _path(draw: random.Random, kinds: Sequence[str] = _KINDS, weights: Sequence[int] = _KIND_WEIGHTS) -> str:
        row, other = draw.choices(range(ROWS), _ROW_WEIGHTS, k=2)
        (kind,) = draw.choices(kinds, weights)
        return kind.format(row=row, other=other)

    async def _read(
        self,
        connection: Connection,
        replica: int,
        draw: random.Random,
        path: str,
        token: str = "",
        promised: Mapping[int, int] | None = None,
    ) -> None:
        fields = {"accept-language": draw.choice(("en", "fr"))}
        if token:
            fields["cacheinval-token"] = token
        began = time.monotonic()
        try:
            answer = await connection.ask("GET", path, _PATIENCE, fields)
        except Lost as lost:
            self._unanswered[str(lost)] += 1
            # A client that is refused at once must not repeat its request without a pause.
            await asyncio.sleep(0.05)
            return
        ended = time.monotonic()
        self._note(answer, replica, began, ended, path, promised)

    def _note(
        self,
        answer: Answer,
        replica: int,
        began: float,
        ended: float,
        path: str,
        promised: Mapping[int, int] | None = None,
        *,
        cdn: bool = False,
    ) -> None:
        if answer.status != 200:
            self._unanswered[str(answer.status)] += 1
            return
        body = json.loads(answer.body)
        self.history.reads.append(
            Read(
                replica=replica,
                life=answer.fields["x-life"],
                began=began,
                ended=ended,
                path=path,
                versions={int(row): version for row, version in body["versions"].items()},
                filled=body["filled"],
                cache_status=answer.fields.get("cache-status", ""),
                live=answer.fields["x-live"] == "1",
                promised=promised or {},
                cdn=cdn,
            )
        )

    async def _reads_through_cdn(self, replica: int, draw: random.Random) -> None:
        connections = [Connection(port) for port in self._addresses]
        while self._going:
            path = self._path(draw, ("/rows/{row}", "/rows"), (3, 1))
            began = time.monotonic()
            try:
                answer, kept = await self.cdn.get(path, connections, replica)
            except Lost as lost:
                self._unanswered[str(lost)] += 1
                await asyncio.sleep(0.05)
            else:
                # A fresh answer of a replica is a read of that replica, not of the CDN.
                self._note(answer, replica, began, time.monotonic(), path, cdn=kept)
            await asyncio.sleep(draw.uniform(*_READ_PAUSE))
        for connection in connections:
            connection.close()

    # -- writing --------------------------------------------------------------------------------

    async def _writes(self, replica: int, draw: random.Random) -> None:
        """Write a row, read it here at once, and then on any replica, with the token of the write if it has one."""
        connections = [Connection(address) for address in self._addresses]
        while self._going:
            (row,) = draw.choices(range(ROWS), _ROW_WEIGHTS)
            number = next(self._numbers)
            answer = await self._write(connections[replica], replica, draw, row, number)
            if answer is not None:
                await self._read(connections[replica], replica, draw, f"/rows/{row}")
                elsewhere = draw.randrange(len(connections))
                token, commit = answer.fields.get("cacheinval-token", ""), self._authority.commits.get(number)
                promised = {row: commit.version} if token and commit is not None else {}
                await self._read(connections[elsewhere], elsewhere, draw, f"/rows/{row}", token, promised)
            await asyncio.sleep(draw.uniform(*_WRITE_PAUSE))
        for connection in connections:
            connection.close()

    async def _write(
        self, connection: Connection, replica: int, draw: random.Random, row: int, number: int
    ) -> Answer | None:
        method, path, patience = draw.choices(_WRITES, _WRITE_WEIGHTS)[0]
        if draw.random() < _ABANDONED_SHARE:
            patience = draw.uniform(0.0, 0.03)
        began = time.monotonic()
        answer = None
        try:
            answer = await connection.ask(method, f"{path.format(row=row)}number={number}", patience)
        except Lost:
            await asyncio.sleep(0.05)
        ended = time.monotonic()
        outcome = _outcome(answer)

        def write(commit: Commit | None) -> Write:
            return Write(
                row=row,
                replica=replica,
                began=began,
                ended=ended,
                outcome=outcome,
                commit=commit,
                soft=method == "PATCH",
            )

        self._written.append((number, write))
        return answer

    async def _writes_of_another(self, draw: random.Random) -> None:
        """Another program writes rows and puts events into the queue, without a request to the app."""
        while self._going:
            (row,) = draw.choices(range(ROWS), _ROW_WEIGHTS)
            number, began = next(self._numbers), time.monotonic()
            self._authority.commit(row, number)
            self._events.put(number, row)

            def write(commit: Commit | None, row: int = row, number: int = number, began: float = began) -> Write:
                done = self._events.done.get(number)
                return Write(
                    row=row,
                    replica=-1,
                    began=began,
                    ended=began if done is None else done.at,
                    outcome=Outcome.UNKNOWN if done is None else Outcome.DONE,
                    commit=commit if commit is None or done is None else replace(commit, life=done.life),
                    other=True,
                )

            self._written.append((number, write))
            await asyncio.sleep(draw.uniform(*_WRITE_PAUSE))

    # -- looking --------------------------------------------------------------------------------

    async def _probes(self, replica: int) -> None:
        connection = Connection(self._addresses[replica])
        while self._going:
            began = time.monotonic()
            try:
                answer = await connection.ask("GET", "/-/state", _PATIENCE)
            except Lost:
                pass
            else:
                probe = Probe(
                    life=answer.fields["x-life"],
                    began=began,
                    ended=time.monotonic(),
                    clean=answer.body[:1] == b"1",
                    told=answer.body[1:] == b"1",
                )
                self.history.probes.append(probe)
            await asyncio.sleep(_PROBE_PAUSE)
        connection.close()


def _outcome(answer: Answer | None) -> Outcome:
    purge = "" if answer is None else answer.fields.get("cacheinval-purge", "")
    if answer is None or answer.status >= 400 or not purge:
        return Outcome.UNKNOWN
    if purge in ("done", "everywhere"):
        return Outcome(purge)
    return Outcome.LATE if "late-purge" in answer.fields.get("cache-status", "") else Outcome.QUEUED
