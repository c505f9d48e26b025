"""The purge log in Redis, as one event loop reaches it."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi_cacheinval.bus.call import Call, LogKeys, Said
from fastapi_cacheinval.bus.entries import (
    LineError,
    decode_line,
    decode_lines,
    decode_page,
    encode_payload,
    encode_tags,
)
from fastapi_cacheinval.bus.looks import PAGE_LUA, SIGHT_LUA, WAIT_LUA
from fastapi_cacheinval.bus.replication import REPLICAS_LUA, SETTLE_LUA
from fastapi_cacheinval.bus.script import LUA, PAGE_BYTES
from fastapi_cacheinval.connections.client import Away, Client, Script, raising
from fastapi_cacheinval.core.confirming import doubt_about
from fastapi_cacheinval.core.log_types import AppliedByAll, Ask, Current, LogEntry, Missed, Page, Reply, Reset, Term
from fastapi_cacheinval.core.tag_limits import MOST_TAGS
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.log import Answer, Proposal, Standing

__all__ = ["RedisLog", "Sight"]

logger = logging.getLogger("fastapi_cacheinval.bus")

_RUN, _PAGE, _WAIT, _SIGHT = Script(LUA), Script(PAGE_LUA), Script(WAIT_LUA), Script(SIGHT_LUA)
_SETTLE, _REPLICAS = Script(SETTLE_LUA), Script(REPLICAS_LUA)
# The larger one holds the tags of any one line.
_PAGE_SIZES = (1_000, MOST_TAGS + 1)
# Microseconds: nobody waits longer for what anyone may write into the log.
_WIDEST = 3_600_000_000


class Sight:
    """What all event loops share: whether the log's server has been looked at for what it lacks.

    `widest` is the longest bound of a lease that it has told of, in microseconds. When the log is lost, those who
    remember it tell the next one.
    """

    def __init__(self) -> None:
        self.looked = False
        self.widest = 0


class RedisLog:
    """A `SharedLog` over one client; `bound` is the length of a lease, `life` what the longest stored one lives.

    `origin` is this process as host/pid, which its lines tell to people. An answer to a heartbeat or a purge counts
    once `confirm_replicas` replicas of the server have acknowledged it, and not before.
    """

    def __init__(
        self,
        client: Client,
        keys: LogKeys,
        *,
        bound: float,
        life: Callable[[], float],
        sight: Sight,
        origin: str = "",
        confirm_replicas: int = 0,
    ) -> None:
        self._client = client
        self._keys = keys
        self._bound = bound
        self._life = life
        self._sight = sight
        self._origin = origin
        self._confirm = confirm_replicas
        # The last term of which they have confirmed an answer.
        self._settled: Term | None = None

    async def run(
        self,
        ask: Ask,
        replica: str,
        purge: Proposal | None = None,
        *,
        lines: bool = True,
        waiter: str = "",
        applied: Sequence[LogEntry] = (),
    ) -> Answer:
        # Made anew for every try: a purge that is repeated is another line.
        fresh = secrets.token_hex(8)
        payload = b""
        pending = tuple(self._keys.pending(line.waiter, line.nonce) for line in applied)
        if purge is not None:
            payload = encode_payload(**purge._asdict(), waiter=waiter, origin=self._origin)
            pending = (self._keys.pending(waiter, fresh),) if waiter else ()
        call = Call(
            replica=replica,
            term=ask.term.number,
            term_nonce=ask.term.nonce,
            seq=ask.seq,
            nonce=ask.nonce,
            fresh=fresh,
            bound=self._bound,
            widest=self._sight.widest,
            channel=self._keys.channel,
            page_bytes=PAGE_BYTES if lines else 0,
            life=self._life(),
            soft=purge is not None and purge.soft,
            payload=payload,
            tags=() if purge is None else encode_tags(purge.tags),
            pending=pending,
        )
        # A call that takes no lease and writes no purge promises nothing.
        confirm = self._confirm if replica or payload else 0
        with raising(LogUnavailable):
            reply = await self._client.script(
                _RUN, self._keys[:4], call.arguments(), confirm_replicas=confirm, answered_by=call.answered_by
            )
            said = Said.read(reply)
            self._sight.widest = max(self._sight.widest, min(said.widest, _WIDEST))
            answer = await _answer(said, purge, waiter, self._origin, lines=lines)
            if confirm and await self._settled_now(answer.reply.term):
                # The server counted the leases that it knew. An earlier primary may have granted others until now.
                answer = answer._replace(pending=None)
        return answer

    async def _settled_now(self, term: Term) -> bool:
        """Have a term begin, for those who wait, with its first confirmed answer; whether this is the first here."""
        if term == self._settled:
            return False
        await self._client.script(_SETTLE, self._keys[:1], (term.nonce,))
        self._settled = term
        return True

    async def _look(self) -> None:
        """Say once what is lost where the server does not tell which it is, or has too few replicas."""
        if self._sight.looked:
            return
        self._sight.looked = True
        try:
            sees = await self._client.script(_SIGHT, self._keys[:1], ())
            connected = await self._client.script(_REPLICAS, self._keys[:1], ()) if self._confirm else -1
        except Away:
            self._sight.looked = False
            return
        if not sees:
            logger.warning(
                "the user of the purge log may not run INFO, so one Redis cannot be told from another: where a "
                "failover, or a restart with older data, loses a purge, only a replica that had read it notices; "
                "allow it with +info"
            )
        doubt = doubt_about(self._confirm, connected) if connected >= 0 else None
        if doubt is not None:
            logger.warning("%s", doubt)

    async def messages(self, replica: str, *, lines: bool = True) -> AsyncIterator[LogEntry | AppliedByAll | None]:
        channels = self._keys.told(replica), *((self._keys.channel,) if lines else ())
        with raising(LogUnavailable):
            async for message in self._client.messages(*channels, quiet=self._bound):
                if message is None:
                    yield None
                    await self._look()
                    continue
                channel, data = message
                if channel == channels[0]:
                    yield AppliedByAll(data.decode("ascii", "replace"))
                    continue
                try:
                    yield decode_line(data)
                except LineError:
                    # Of a later release, or larger than any writer makes: the log itself says what it comes to.
                    yield None

    async def page(self, term: Term, up_to: int) -> Page | None:
        for limit in _PAGE_SIZES:
            with raising(LogUnavailable):
                reply = await self._client.script(
                    _PAGE, (self._keys.tags, self._keys.state), (term.nonce, up_to, limit)
                )
                if not reply:
                    return None
                floor = min(int(reply[0]), up_to)
                page = decode_page(term, int(reply[1]), up_to, limit, floor, reply[2])
            if page is not None:
                return page
        return None

    async def behind(self, line: LogEntry) -> Standing:
        bound = max(int(self._bound * 1_000_000), self._sight.widest)
        arguments = (line.term.number, line.term.nonce, line.seq, bound)
        with raising(LogUnavailable):
            found = await self._client.script(_WAIT, (self._keys.state, self._keys.acks), arguments)
            behind, there, young, bound, least = map(int, found)
            return Standing(behind, there, bool(young), min(bound, _WIDEST) / 1_000_000, least)

    async def leave(self, replica: str) -> None:
        with raising(LogUnavailable):
            await self._client.command("HDEL", self._keys.acks, replica)

    async def close(self) -> None:
        await self._client.close()


async def _answer(reply: Said, purge: Proposal | None, waiter: str, origin: str, *, lines: bool) -> Answer:
    term, at = Term(reply.term, reply.term_nonce), reply.at / 1_000_000
    end = reply.seq, reply.nonce
    line = None
    if purge is not None:
        line = LogEntry(term, *end, purge.tags, purge.soft, at, purge.trace, purge.prompt, purge.purges, waiter, origin)
    # Until the end has been read, the line is not the next one.
    own = () if line is None or reply.more else (line,)
    said: Reply = Reset(term, *end)
    if reply.verdict == 0 and lines:
        said = Missed(term, own) if own else Current(term)
    elif reply.verdict == 1:
        # What a later release has written, and cannot be read here, is gone behind: what is kept is given up for it.
        with contextlib.suppress(LineError):
            said = Missed(term, (*await decode_lines(reply.missed), *own), more=reply.more)
    return Answer(said, line, at, reply.pending if reply.pending >= 0 else None)
