"""The front lookup for a server that answers before it makes a task of a request (docs/uvicorn.md)."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from starlette.types import Scope

from fastapi_cacheinval.core.conditional import not_modified
from fastapi_cacheinval.core.hit_fields import UNJOINABLE
from fastapi_cacheinval.core.keys import raw_target
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.token import TOKEN_FIELD
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.grammar.request_head import RequestHead
from fastapi_cacheinval.ports.store import Target

__all__ = ["RawHit", "RawHits"]


class RawHit(NamedTuple):
    """An answer: `fields` are complete lines, `body` is empty for a 304 and for HEAD."""

    status: int
    fields: bytes
    body: bytes


class RawHits:
    """Answers what the front lookup would, and nothing that it is not sure of.

    `front_open` says whether the front lookup may answer at a moment, and `recorded` whether somebody has to be told of
    each hit; then every request takes the ordinary way.
    """

    def __init__(
        self, app_context: AppContext, *, front_open: Callable[[float], bool], recorded: Callable[[], bool]
    ) -> None:
        self._app_context = app_context
        self._front_open = front_open
        self._recorded = recorded
        self._at = app_context.at()
        self._engine = app_context.engine
        self._replica = app_context.engine.replica
        self._now = app_context.engine.now
        self._emit = app_context.emit_cache_status

    @property
    def ready(self) -> bool:
        """Whether the app has been looked at, and is sound."""
        return self._app_context.ready

    @property
    def front_forced(self) -> bool:
        """Whether the author has said that hits may skip whatever stands on the way."""
        return self._app_context.front is True

    def join_fields(self) -> None:
        """Have what is stored from now on kept with its fields joined, which counts in the size of L1."""
        self._engine.joins = True

    def answer(self, head: RequestHead, target: Target) -> RawHit | None:
        """The answer to a request for a target of the front lookup; None where it has to go the ordinary way."""
        kept = self._at(target)
        if kept is None or self._recorded() or not self._front_open(now := self._now()):
            return None
        # With several variants, the request's fields choose.
        stored = kept if isinstance(kept, StoredResponse) else self._engine.choose(kept, kept.key, head.headers)[0]
        if (
            stored is None
            or now >= stored.early_refresh_from
            or now >= self._replica.lease_until
            # Since the last purge of whatever tag it has not been looked at.
            or (stored.verified != self._replica.changes and self._engine.stale_from(stored, now) != inf)
        ):
            return None
        joined = stored.joined or self._engine.join_fields(stored, now)
        if joined is UNJOINABLE or (head.method == "HEAD" and not self._is_head_of_get(target)):
            return None
        stored.counts.front_hits += 1
        added = b"age: %d\r\n" % (now - stored.created)
        if self._emit:
            added += b"cache-status: cacheinval; hit; ttl=%d\r\n" % (stored.fresh_until - now)
        if head.conditions and not_modified(
            head.conditions, stored.status, stored.etag, stored.last_modified, self._app_context.cache.clock.wall()
        ):
            return RawHit(304, joined[1] + added, b"")
        return RawHit(stored.status, joined[0] + added, b"" if head.method == "HEAD" else stored.body)

    def fresh_at(self, scope: Scope) -> StoredResponse | None:
        """What the front lookup would answer a plain GET with, fresh, without answering it: for searches in tests."""
        host = None
        for name, value in scope["headers"]:
            if name in (b"authorization", TOKEN_FIELD):
                return None
            if name == b"host" and host is None:
                host = value
        now = self._now()
        stored = self._at(raw_target(scope, host))
        if stored is None and self._app_context.spelled:
            stored = self._app_context.at_as_sent(scope, host)
        if not isinstance(stored, StoredResponse) or not self._front_open(now):
            return None
        return stored if self._engine.serves(stored, now) else None

    def _is_head_of_get(self, target: Target) -> bool:
        """Whether HEAD of a target is its GET without the content."""
        host, path, query, scheme, root_path = target[:5]
        scope: dict[str, Any] = {
            "type": "http",
            "method": "HEAD",
            "path": path,
            "root_path": root_path,
            "query_string": query,
            "scheme": scheme,
            "headers": [(b"host", host)],
        }
        return self._app_context.table.head_of_get(str(path), scope)
