"""Unsafe requests: what they purge, and when.

The rules: an answer below 400 purges what the route declares, what was added on the way, the target
path and its parent collection; a status of 400 or more purges nothing; an exception or a
cancellation has an unknown outcome and purges. Where something can still commit after the response
has begun, the response is held until the app returns: commit, purge, release. Past its bounds it is
released with its tags fenced, and purged again when the app returns. Purges run in tasks of the
cache's own, so that they survive the request.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.storing import content_length
from fastapi_cacheinval.core.tags import normalise_tags, path_tag
from fastapi_cacheinval.dependencies import Cached, Invalidates
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.answering import status_fields
from fastapi_cacheinval.framework.bindings import InvalidParameter
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.site import Site
from fastapi_cacheinval.grammar.fields import combined, first, values
from fastapi_cacheinval.grammar.surrogate_key import parse_surrogate_key

__all__ = ["Mutation"]


class _State(Enum):
    WAITING = "no answer yet"
    HELD = "the answer waits for the commit"
    EARLY = "the answer went before the commit could be known"
    GONE = "the answer went after all that could commit"
    REFUSED = "the answer is an error that the app chose"


class Mutation(Exchange):
    """An unsafe request, and the purge that follows from it."""

    __slots__ = (
        "_alarm",
        "_declared_hard",
        "_declared_soft",
        "_fence",
        "_held",
        "_named_paths",
        "_purged",
        "_releasing",
        "_state",
    )

    def __init__(self, site: Site, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(site, runtime, scope, receive, send)
        self.sink = self._take
        self.tended = True
        self._declared_hard: dict[str, None] = {}
        self._declared_soft: dict[str, None] = {}
        self._named_paths: dict[str, None] = {}
        self._held: list[Message] = []
        self._purged: set[str] = set()
        self._state = _State.WAITING
        self._releasing: asyncio.Task[None] | None = None
        self._alarm: Any = None
        self._fence: int | None = None

    # -- what is purged -------------------------------------------------------------------------

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """`cached()` is inert on an unsafe method."""

    def order_refresh(self, stored: StoredResponse) -> None:
        """Nothing is looked up for an unsafe method."""

    def declare(self, request: Request, invalidates: Invalidates) -> None:
        """Render what an `invalidates()` names, for the validated parameters."""
        plan = self.site.table.plan_for(request.scope)
        self._named_paths[request.scope["path"]] = None
        for template in invalidates.templates:
            try:
                bound = {
                    name: plan.bindings[name].value(request)
                    if plan is not None and name in plan.bindings
                    else request.path_params.get(name)
                    for name in template.names
                }
            except InvalidParameter:
                # The framework answers 422, and nothing happens that would have to be purged.
                continue
            tag = template.render(bound)
            if tag is None:
                self.site.counters.dropped_tag()
            else:
                (self._declared_soft if invalidates.soft else self._declared_hard)[tag] = None

    def _wanted(self) -> tuple[tuple[str, ...], bool]:
        """All that is to be purged and has not been, and whether softly: only if all that is declared is soft."""
        soft = bool(self._declared_soft) and not self._declared_hard
        added = () if self._bag is None else self._bag.snapshot()
        named = (*self._declared_hard, *self._declared_soft, *added, *self._path_tags())
        return tuple(tag for tag in dict.fromkeys(named) if tag not in self._purged), soft

    def _path_tags(self) -> list[str]:
        """The target paths and their parent collections, with and without the slash, where a cached GET is there."""
        root = self.site.root_of(self.arrived)
        tags: dict[str, None] = {}
        for path in (self.arrived["path"], *self._named_paths):
            trimmed = path.rstrip("/")
            parent = trimmed.rpartition("/")[0]
            for spelling in (trimmed, trimmed + "/", parent, parent + "/"):
                if spelling and self._has_cached_get(spelling):
                    tags[path_tag(self.site.below(root, spelling))] = None
        return list(tags)

    def _has_cached_get(self, path: str) -> bool:
        plan = self.site.table.match("GET", path, self.arrived)
        return plan is not None and plan.policy is not None

    def _note_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """What the response names: `Surrogate-Key` tags, and same-origin `Location` and `Content-Location`."""
        self.bag().add(*normalise_tags(parse_surrogate_key(values(headers, b"surrogate-key"))))
        host = (combined(self.client_headers, b"host") or b"").decode("latin-1").lower()
        base = f"{self.arrived.get('scheme', 'http')}://{host}{self.arrived['path']}"
        for name in (b"location", b"content-location"):
            value = first(headers, name)
            if value is None:
                continue
            try:
                target = urlsplit(urljoin(base, value.decode("latin-1")))
            except ValueError:
                continue
            if target.netloc.lower() == host and target.path:
                self._named_paths[unquote(target.path)] = None

    def _can_still_commit(self) -> bool:
        plan = self.site.table.plan_for(self.scope) if "route" in self.scope else None
        return plan is None or plan.commits_late or not self.site.harmless_inside

    # -- the app's messages ---------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        if self._releasing is not None:
            await asyncio.shield(self._releasing)
        if self._state is _State.HELD:
            await self._hold(message)
        elif message["type"] == "http.response.start" and self._state is _State.WAITING:
            await self._started(message)
        else:
            await self.outer(message)

    async def _started(self, message: Message) -> None:
        if message["status"] >= 400:
            self._state = _State.REFUSED
            await self.outer(message)
            return
        headers = list(message.get("headers", ()))
        self._note_headers(headers)
        tags, _ = self._wanted()
        if not tags:
            self._state = _State.GONE
            await self.outer(message)
        elif not self._can_still_commit():
            self._state = _State.GONE
            await self._purge()
            await self.outer(self._said(message, b"done"))
        elif self._holdable(message["status"], headers):
            self._state = _State.HELD
            self._held.append(message)
            self._alarm = self.site.cache.clock.call_later(self.site.engine.settings.hold_timeout, self._release_late)
        else:
            await self._go_early()
            await self.outer(self._said(message, b"queued"))

    def _holdable(self, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        if (first(headers, b"content-type") or b"").lower().startswith(b"text/event-stream"):
            return False
        if status in (204, 205):
            return True
        length = content_length(headers)
        return length is not None and length <= self.site.engine.settings.hold_max_bytes

    async def _hold(self, message: Message) -> None:
        self._held.append(message)
        size = sum(len(held.get("body", b"")) for held in self._held)
        if size > self.site.engine.settings.hold_max_bytes:
            self._release_late()
            if self._releasing is not None:
                await asyncio.shield(self._releasing)

    def _said(self, message: Message, purge: bytes) -> Message:
        fields = [*message.get("headers", ()), (b"cacheinval-purge", purge)]
        if purge == b"queued":
            outcome = Outcome(Result.BYPASS, reason=Reason.METHOD, detail="late-purge")
            fields += status_fields(self.site, outcome)
        return {**message, "headers": fields}

    # -- purging and releasing ------------------------------------------------------------------

    async def _purge(self) -> None:
        """Purge what has not been; the purge goes on should this request be cancelled."""
        tags, soft = self._wanted()
        if tags:
            self._purged.update(tags)
            await asyncio.shield(self.runtime.own(self.site.cache.purge(tags, soft=soft)))

    async def _go_early(self) -> None:
        """The answer goes before the commit: purge, and fence until the app returns."""
        self._state = _State.EARLY
        tags, soft = self._wanted()
        if not soft:
            self._fence = self.site.engine.replica.fence(tags)
        await self._purge()
        # The commit is still to come: all of it is purged once more then.
        self._purged.clear()

    def _release_late(self) -> None:
        if self._state is _State.HELD and self._releasing is None:
            self._releasing = self.runtime.own(self._release_before_commit())

    async def _release_before_commit(self) -> None:
        await self._go_early()
        await self._release(b"queued")

    async def _release(self, purge: bytes) -> None:
        held, self._held = self._held, []
        for index, message in enumerate(held):
            await self.outer(message if index else self._said(message, purge))

    async def done(self) -> None:
        """The app has returned: all that could commit has."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._releasing is not None:
            await asyncio.shield(self._releasing)
        if self._state is _State.REFUSED:
            return
        await self._purge()
        self._lift()
        if self._state is _State.HELD:
            self._state = _State.GONE
            await self._release(b"done")

    async def failed(self, error: BaseException) -> bool:
        """The app has raised or was cancelled: the outcome is unknown, so purge; a held answer is dropped."""
        if self._alarm is not None:
            self._alarm.cancel()
        tags, soft = self._wanted()
        # What went out early may have been committed since.
        if tags:
            fence = self.site.engine.replica.fence(tags)
            purge = self.runtime.own(self._purge_unknown(tags, fence, soft=soft))
            if isinstance(error, Exception):
                await asyncio.shield(purge)
        else:
            self._lift()
        return False

    async def _purge_unknown(self, tags: tuple[str, ...], fence: int, *, soft: bool) -> None:
        await self.site.cache.purge(tags, soft=soft)
        self.site.engine.replica.lift(fence)
        self._lift()

    def _lift(self) -> None:
        if self._fence is not None:
            self.site.engine.replica.lift(self._fence)
            self._fence = None
