"""Unsafe requests under `honour_headers`: what RFC 9111 section 4.4 and RFC 9875 invalidate, and what a POST stores."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf
from urllib.parse import urljoin

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.rfc9111.asking import read_request
from fastapi_cacheinval.core.rfc9111.cache_groups import invalidated_groups, named_tags
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.storing import content_length
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.messages import were_cut
from fastapi_cacheinval.framework.mutation import Mutation
from fastapi_cacheinval.framework.rfc9111.making import judged_as, keep
from fastapi_cacheinval.framework.rfc9111.resource import Resource, SearchRules, origin_of
from fastapi_cacheinval.grammar.fields import first, lower_names

__all__ = ["HeaderMutation"]

_Purges = list[tuple[tuple[str, ...], bool]]


def _lower(start: Message) -> list[tuple[bytes, bytes]]:
    return lower_names(start.get("headers", ()))


class HeaderMutation(Mutation):
    """Purges its target's path, whoever would answer a GET there, and the cache groups that its response names.

    The response to a POST that names its own target as its `Content-Location` and is explicitly fresh
    is stored for GET (RFC 9110 section 9.3.3), unless anything else was purged since the request entered, or the route
    that answers GET there has a policy of its own.
    """

    by_headers = stores = True
    _groups: tuple[str, ...] = ()
    _start: Message | None = None
    _as_of: int | None = None
    _overtaken = False

    def __init__(
        self, incoming: Incoming, options: HeaderOptions, rules: SearchRules, before: Exchange | None = None
    ) -> None:
        super().__init__(incoming, before)
        self._options = options
        self._rules = rules
        self._content = bytearray()
        self._complete = False

    # -- what is purged -------------------------------------------------------------------------

    def _tags_of_path(self, path: str) -> list[str]:
        own = path_tag(self.app_context.below_root(self.arrived, path))
        return [own, *(tag for tag in super()._tags_of_path(path) if tag != own)]

    def _path_tags(self) -> list[str]:
        return [*super()._path_tags(), *self._groups]

    def _target_tags(self) -> list[str]:
        # What a response names in so many words it names whatever has made it.
        path = self.app_context.below_root(self.arrived, self.arrived["path"])
        return [*([path_tag(path)] if self._purges_paths() else []), *self._groups]

    def _note_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        super()._note_headers(headers)
        self._groups = invalidated_groups(headers, self._origin())

    def _origin(self) -> str:
        scheme, host = origin_of(self.arrived)
        return f"{scheme}://{host.decode('latin-1')}"

    async def _write(self, purges: _Purges, *fences: int | None) -> None:
        replica, before = self.app_context.engine.replica, len(self._numbers)
        untouched = self._start is not None and self._untouched(self._start)
        applied = replica.applied
        await super()._write(purges, *fences)
        own = self._numbers[before:]
        if own:
            # No line of others' between the check and our own.
            alone = untouched and own == list(range(applied + 1, applied + 1 + len(own)))
            self._as_of, self._overtaken = own[-1], self._overtaken or not alone

    def _untouched(self, start: Message) -> bool:
        """Whether nothing that would be stored has been purged since the request entered, but by this mutation."""
        engine = self.app_context.engine
        replica = engine.replica
        entered = self.stamp
        # Fences, this mutation's own among them, are looked at when all is done.
        since = entered._replace(as_of=self._as_of or entered.as_of, fence=replica.fence_count)
        return replica.stale_from(since, self._would_be_tags(start), engine.now()) == inf

    def _would_be_tags(self, start: Message) -> tuple[str, ...]:
        return (*self.request_tags().snapshot(), *named_tags(_lower(start), self._origin()), *self._path_tags(), ALL)

    # -- what is stored -------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._is_for_get(message):
            self._start = {**message, "headers": _lower(message)}
        elif message["type"] == "http.response.body" and self._start is not None:
            self._content += message.get("body", b"")
            self._complete = not message.get("more_body", False)
            cut = self._complete and were_cut(self.passages, content_length(self._start["headers"]))
            if cut or len(self._content) > self.app_context.engine.settings.max_body_bytes:
                self._start = None

    def _is_for_get(self, start: Message) -> bool:
        if self.scope["method"] != "POST" or start["status"] != 200:
            return False
        named = first(_lower(start), b"content-location")
        if named is None:
            return False
        query = self.arrived.get("query_string", b"").decode("latin-1")
        raw_path: bytes = self.arrived.get("raw_path") or self.arrived["path"].encode()
        target = self._origin() + raw_path.decode("latin-1") + (f"?{query}" if query else "")
        try:
            return urljoin(target, named.decode("latin-1")) == target
        except ValueError:
            return False

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has come to a route."""
        await self.follow(partial(super().enter, handle), scope, receive, send)

    async def ended(self) -> None:
        """The app has returned: what it has said may be stored for GET."""
        await super().ended()
        if self._start is not None and self._complete:
            self._store(self._start)

    def _store(self, start: Message) -> None:
        """Store for GET what the app has just said, as of its own purge."""
        engine = self.app_context.engine
        stamp = engine.replica.stamp(self.stamp.began)
        if self._as_of is None or self._overtaken or stamp.generation != self.stamp.generation:
            return
        if engine.replica.fenced(self._would_be_tags(start)):
            return
        headers = _lower(start)
        length = content_length(headers)
        if length is not None and length != len(self._content):
            return
        resource = Resource(self, self._options, self._rules)
        if resource.has_policy:
            # It would answer ahead of what the policy asks.
            return
        asked = read_request("GET", self.client_headers, self._options)
        received = replace(
            resource.received(asked, 200, headers, self.request_tags().snapshot()),
            stamp=stamp._replace(as_of=self._as_of),
        )
        judged = judged_as(resource, received)
        if judged.refusal is None and judged.life.explicit:
            keep(resource, asked, received, judged, bytes(self._content))
