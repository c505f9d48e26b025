"""What the collapsing loop is told of a request under `honour_headers`: RFC 9111 section 4 decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.decide import Decision, Serve, ServeStale
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.ranges import holds
from fastapi_cacheinval.core.rfc9111.response import (
    SharedResponse,
    answers,
    is_for,
    is_for_the_app_to_cut,
    stands_in,
)
from fastapi_cacheinval.core.rfc9111.validating import Newer
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.refresh import lead_in_background
from fastapi_cacheinval.framework.rfc9111.resource import Resource
from fastapi_cacheinval.grammar.fields import RawHeaders

__all__ = ["HeaderAsker"]

_OF_THE_CLIENT = frozenset({b"cache-control", b"pragma"})


class HeaderAsker:
    """One GET or HEAD; `forward` forwards it, made again, as the leader of a key."""

    def __init__(self, resource: Resource, asked: Asked, forward: Callable[[Incoming], Awaitable[None]]) -> None:
        self._resource = resource
        self._asked = asked
        self._forward = forward
        self._exchange = resource.exchange
        self._engine = resource.exchange.app_context.engine

    @property
    def entered(self) -> float:
        """When the request came, on the cache's clock."""
        return self._exchange.stamp.began

    @property
    def deadline(self) -> float:
        """Until when the request may wait, on the cache's clock."""
        return self.entered + self._engine.settings.collapse_timeout

    def find(self) -> tuple[StoredResponse | None, bytes, bool]:
        """What is stored for the request, a part of it included, the key of its forward, and if only `Vary` missed."""
        found = self.find_whole()
        if self._asked.ranges is not None and not isinstance(self.judge(found[0]), Serve | ServeStale):
            wall, whole = self._exchange.app_context.cache.clock.wall(), found[0]
            # A whole that another replica has made may have come beside it, and be of a newer version.
            beside = None if whole is None else Newer(self._asked, whole.status, whole.headers, None, kept=True)
            for key in self._resource.part_keys:
                part, _ = self._engine.find(key, self._asked.headers)
                if (
                    isinstance(part, SharedResponse)
                    and (beside is None or beside.spares(part))
                    and holds(self._asked, part, wall)
                    and isinstance(self.judge(part), Serve)
                ):
                    return part, found[1], False
        return found

    def find_whole(self) -> tuple[SharedResponse | None, bytes, bool]:
        """The same without parts."""
        keys = self._resource.keys
        collapse_key, vary_miss = keys[-1], False
        for key in keys:
            stored, variant = self._engine.find(key, self._asked.headers)
            if isinstance(stored, SharedResponse):
                return stored, variant, False
            if variant != key:
                collapse_key, vary_miss = variant, True
        return None, collapse_key, vary_miss

    def judge(self, stored: StoredResponse | None) -> Decision:
        """What a stored response is good for, by its own fields and by what the request asks."""
        now = self._engine.now()
        kept = None if stored is None else self._resource.usable(stored)
        if kept is None and stored is not None:
            # What another tier has may be of use: it is asked where nothing is here.
            self._engine.store.remove(stored.key)
        stale_from = None if kept is None else self._engine.stale_from(kept, now, self.entered)
        return answers(self._asked, kept, stale_from, now)

    @property
    def l2_key(self) -> bytes:
        """The key under which L2 is asked."""
        return self._resource.keys[-1]

    @property
    def asked_headers(self) -> RawHeaders:
        """The request fields that select a variant."""
        return self._asked.headers

    def may_wait(self, stored: StoredResponse | None) -> bool:
        """Whether another's forward would do, and this one for others."""
        asked = self._asked
        wanted = asked.directives
        own_way = wanted.no_cache or wanted.no_store or wanted.max_age is not None or wanted.min_fresh is not None
        kept = None if stored is None else self._resource.usable(stored)
        if kept is not None and (not is_for(asked, kept) or is_for_the_app_to_cut(asked, kept)):
            return False
        return not (own_way or asked.authorized or (asked.ranges is not None and kept is None))

    def fenced(self) -> bool:
        """Whether the request's path is fenced; other tags are known only with the response."""
        return self._engine.replica.fenced((path_tag(self._resource.path), ALL))

    def overtaken(self) -> bool:
        """Whether something was purged since the request entered."""
        return self._exchange.overtaken()

    async def client_left(self) -> bool:
        """Whether the client is known to have left."""
        return await self._exchange.receive.client_left(self._exchange.arrived)

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stored response may stand in for a forward that failed."""
        now, kept = self._engine.now(), self._resource.usable(stored)
        return kept is not None and stands_in(self._asked, kept, self._engine.stale_from(kept, now), now)

    def order_forward(self, key: bytes) -> bool:
        """Have the request forwarded once more in the background."""
        return self.order(key, None)

    def order(self, key: bytes, stored: StoredResponse | None) -> bool:
        """Forward once more in the background, leading the key; False where somebody is at it or there is no room."""
        varied = frozenset(name for name, _ in stored.vary) if stored is not None else frozenset[bytes]()
        dropped = CONDITIONAL_FIELDS | (_OF_THE_CLIENT - varied)
        app_context, runtime, entered = self._exchange.app_context, self._exchange.runtime, self._exchange.entered
        return lead_in_background(app_context, runtime, entered, self._forward, key, dropped=dropped, newer_than=stored)
