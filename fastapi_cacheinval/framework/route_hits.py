"""Fresh hits at routes whose covers run before the app has the request: nearly all route hits are such."""

from __future__ import annotations

from asyncio import CancelledError
from math import inf

from starlette.types import Scope, Send

from fastapi_cacheinval.core.hit_fields import AGES
from fastapi_cacheinval.core.keys import KeyFrame, PartitionTypeError, framed_key, key_frame, partition_digest
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.private_answers import made_private
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.framework.ahead import MOMENT
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.responding import send_response
from fastapi_cacheinval.framework.route_target import key_parts_of
from fastapi_cacheinval.grammar.fields import head_tells_of_content, lower_names
from fastapi_cacheinval.routes.fastapi_solver import Handed
from fastapi_cacheinval.routes.shortcuts import Shortcut

__all__ = ["RouteHits"]

_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
_MOST_FRAMES = 16
# Of what a client says of the host and the query.
_LONGEST_ASKED = 512


class RouteHits:
    """Answers a request with what is stored, once its covers have run, if that takes comparisons alone."""

    def __init__(self, app_context: AppContext) -> None:
        self._app_context = app_context
        self._counters = app_context.counters
        self._engine = app_context.engine
        self._replica = app_context.engine.replica
        self._get = app_context.engine.store.get

    def shortcut(self, scope: Scope) -> Shortcut | None:
        """What is known of a GET's route before the app has it; None where somebody else has to see it on its way."""
        app_context = self._app_context
        shortcuts, cache = app_context.shortcuts, app_context.cache
        if shortcuts is None or (scope["path"], scope.get("root_path", "")) not in shortcuts.paths:
            return None
        if app_context.observed or app_context.downstream is not None:
            return None
        if not cache.enabled or cache.feed.on or cache.shadow.on or self._counters.also is not None:
            return None
        return shortcuts.of(scope)

    def _holds(self, shortcut: Shortcut) -> bool:
        """Whether that is still so."""
        shortcuts = self._app_context.shortcuts
        return shortcuts is not None and self._app_context.cache.enabled and shortcuts.holds(shortcut)

    async def answer(self, scope: Scope, send: Send, shortcut: Shortcut, handed: Handed, stamp: Stamp) -> bool:
        """Answer with a fresh response; False where the request has to be looked up in full.

        The scope is what it is when the request comes to its route.
        """
        if handed.covers is None or shortcut.plan.front:
            # What the front lookup lacks it is to find from now on, which this would not see to.
            return False
        engine = self._engine
        handed.partition = partition = shortcut.cached.partition(handed.covers)
        if shortcut.plan.sees_request and not head_tells_of_content(scope.get("http_version")):
            return False
        now = engine.now()
        if not 0 < now - stamp.began < MOMENT and not self._holds(shortcut):
            # The covers took so long that anything may have changed.
            return False
        stored = self._find(scope, shortcut, partition)
        if (
            stored is None
            or now >= stored.early_refresh_from
            or now >= self._replica.lease_until
            or (stored.verified != self._replica.changes and engine.stale_from(stored, now) != inf)
            or stored.counts_from_now
            or (shortcut.plan.private and not _is_private(stored))
        ):
            return False
        stored.counts.answered(Result.HIT)
        fields = [*stored.headers, AGES[int(now - stored.created)]]
        if self._app_context.emit_cache_status:
            fields.append((b"cache-status", b"cacheinval; hit; ttl=%d" % (stored.fresh_until - now)))
        for name, _ in scope["headers"]:
            if name in _CONDITIONS:
                await send_response(send, self._app_context, stored, scope["headers"], fields)
                return True
        await send({"type": "http.response.start", "status": stored.status, "headers": fields})
        await send({"type": "http.response.body", "body": stored.body})
        return True

    def cut_off(self, shortcut: Shortcut, error: BaseException) -> None:
        """Count a request whose covers were cut off by this error, as one that was cut off at its route."""
        why = "cancelled" if isinstance(error, CancelledError) else "failed"
        self._counters.answered(Outcome(Result.BYPASS, detail=why), shortcut.plan.path)

    def _find(self, scope: Scope, shortcut: Shortcut, partition: tuple[object, ...]) -> StoredResponse | None:
        try:
            digest = partition_digest(partition, self._app_context.cache.secret) if partition else b""
        except PartitionTypeError:
            return None
        frame = self._frame(scope, shortcut)
        key = framed_key(frame, digest)
        kept = self._get(key)
        if kept is None or isinstance(kept, StoredResponse):
            return kept
        return self._engine.choose(kept, key, scope["headers"])[0]

    def _frame(self, scope: Scope, shortcut: Shortcut) -> KeyFrame:
        plan, app_context, frames = shortcut.plan, self._app_context, shortcut.frames
        if plan.sees_request:
            # Its keys have the path as it was sent, which is no part of what is remembered.
            return key_frame(key_parts_of(app_context, scope, scope, plan))
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        query = scope.get("query_string", b"")
        local = app_context.local_part(plan.identity, plan.ordinal, plan.epoch, plan.nameless)
        asked = (*hosts, query, scope.get("scheme", "http"), local)
        frame = frames.get(asked)
        if frame is None:
            frame = key_frame(key_parts_of(app_context, scope, scope, plan))
            if sum(map(len, (*hosts, query))) <= _LONGEST_ASKED:
                if len(frames) >= _MOST_FRAMES:
                    frames.clear()
                frames[asked] = frame
        return frame


def _is_private(stored: StoredResponse) -> bool:
    """Whether a response leaves as private as it is."""
    if stored.private is None:
        stored.private = made_private(lower_names(stored.headers)) is None
    return stored.private
