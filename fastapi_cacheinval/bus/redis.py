"""The purge log in Redis, as one event loop reaches it."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi_cacheinval.bus.entries import (
    LineError,
    decode_line,
    decode_lines,
    decode_page,
    encode_payload,
    encode_tags,
)
from fastapi_cacheinval.bus.script import LUA, PAGE_BYTES, PAGE_LUA, SIGHT_LUA, WAIT_LUA, Call, LogKeys
from fastapi_cacheinval.connections.client import Away, Client, Script
from fastapi_cacheinval.core.log_types import Ask, Current, LogEntry, Missed, Page, Reply, Reset, Term
from fastapi_cacheinval.core.tag_limits import MOST_TAGS
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.log import Answer, Proposal, Standing

__all__ = ["RedisLog", "Sight"]

logger = logging.getLogger("fastapi_cacheinval.bus")

_RUN, _PAGE, _WAIT, _SIGHT = Script(LUA), Script(PAGE_LUA), Script(WAIT_LUA), Script(SIGHT_LUA)
# The larger one holds the tags of any one line.
_PAGE_SIZES = (1_000, MOST_TAGS + 1)


class Sight:
    """Whether it has been looked at if the log's server can be told from another one; once for all event loops."""

    def __init__(self) -> None:
        self.looked = False


class RedisLog:
    """A `SharedLog` over one client; `bound` is the length of a lease, `life` what the longest stored one lives.

    `origin` is this process as host/pid, which its lines tell to people.
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
    ) -> None:
        self._client = client
        self._keys = keys
        self._bound = bound
        self._life = life
        self._sight = sight
        self._origin = origin

    async def run(self, ask: Ask, replica: str, purge: Proposal | None = None, *, lines: bool = True) -> Answer:
        payload = b""
        if purge is not None:
            payload = encode_payload(**purge._asdict(), origin=self._origin)
        call = Call(
            replica=replica,
            term=ask.term.number,
            term_nonce=ask.term.nonce,
            seq=ask.seq,
            nonce=ask.nonce,
            # Made anew for every try: a purge that is repeated is another line.
            fresh=secrets.token_hex(8),
            bound=self._bound,
            channel=self._keys.channel,
            page_bytes=PAGE_BYTES if lines else 0,
            life=self._life(),
            soft=purge is not None and purge.soft,
            payload=payload,
            tags=() if purge is None else encode_tags(purge.tags),
        )
        try:
            reply = await self._client.script(_RUN, self._keys[:4], call.arguments())
            return await _answer(reply, purge, lines=lines, origin=self._origin)
        except Away as away:
            raise LogUnavailable(away.reason) from away
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise LogUnavailable(f"it answers as no log does ({error})") from error

    async def _look(self) -> None:
        """Say once what is lost where the server does not tell which it is."""
        if self._sight.looked:
            return
        self._sight.looked = True
        try:
            sees = await self._client.script(_SIGHT, self._keys[:1], ())
        except Away:
            self._sight.looked = False
            return
        if not sees:
            logger.warning(
                "the user of the purge log may not run INFO, so one Redis cannot be told from another: where a "
                "failover, or a restart with older data, loses a purge, only a replica that had read it notices; "
                "allow it with +info"
            )

    async def messages(self) -> AsyncIterator[LogEntry | None]:
        try:
            async for message in self._client.messages(self._keys.channel, quiet=self._bound):
                if message is None:
                    yield None
                    await self._look()
                    continue
                try:
                    yield decode_line(message[1])
                except LineError:
                    # Of a later release, or larger than any writer makes: the log itself says what it comes to.
                    yield None
        except Away as away:
            raise LogUnavailable(away.reason) from away

    async def page(self, term: Term, up_to: int) -> Page | None:
        page = None
        for limit in _PAGE_SIZES:
            try:
                reply = await self._client.script(
                    _PAGE, (self._keys.tags, self._keys.state), (term.nonce, up_to, limit)
                )
                if not reply:
                    return None
                floor = min(int(reply[0]), up_to)
                page = decode_page(term, int(reply[1]), up_to, limit, floor, reply[2])
            except Away as away:
                raise LogUnavailable(away.reason) from away
            except (ValueError, TypeError, IndexError, OverflowError) as error:
                raise LogUnavailable(f"it answers as no log does ({error})") from error
            if page is not None:
                return page
        return page

    async def behind(self, line: LogEntry) -> Standing:
        arguments = (line.term.number, line.term.nonce, line.seq, int(self._bound * 1_000_000))
        try:
            behind, there, young = await self._client.script(_WAIT, (self._keys.state, self._keys.acks), arguments)
        except Away as away:
            raise LogUnavailable(away.reason) from away
        return Standing(int(behind), int(there), bool(young))

    async def leave(self, replica: str) -> None:
        try:
            await self._client.command("HDEL", self._keys.acks, replica)
        except Away as away:
            raise LogUnavailable(away.reason) from away

    async def close(self) -> None:
        await self._client.close()


async def _answer(reply: Any, purge: Proposal | None, *, lines: bool, origin: str) -> Answer:
    verdict, number, term_nonce, seq, nonce, at, messages, more = reply
    term = Term(int(number), term_nonce.decode())
    end = int(seq), nonce.decode()
    line = None
    if purge is not None:
        line = LogEntry(
            term, *end, purge.tags, purge.soft, int(at) / 1_000_000, purge.trace, purge.prompt, purge.purges, origin
        )
    # Until the end has been read, the line is not the next one.
    own = () if line is None or more else (line,)
    said: Reply = Reset(term, *end)
    if verdict == 0 and lines:
        said = Missed(term, own) if own else Current(term)
    elif verdict == 1:
        # What a later release has written, and cannot be read here, is gone behind: what is kept is given up for it.
        with contextlib.suppress(LineError):
            said = Missed(term, (*await decode_lines(messages), *own), more=bool(more))
    return Answer(said, line, int(at) / 1_000_000)
