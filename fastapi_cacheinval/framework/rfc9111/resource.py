"""What a request is for: its key, its origin, and what No-Vary-Search has told of its query."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

from starlette.types import Scope

from fastapi_cacheinval.core.downstream import TAGS
from fastapi_cacheinval.core.keys import as_bytes, below, cache_key, encode, sent_host, sent_path, variant_key
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.storing import Received, unseen
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.rfc9111.exchange import HeaderRead
from fastapi_cacheinval.grammar.fields import RawHeaders, combined, values
from fastapi_cacheinval.grammar.no_vary_search import (
    EVERYTHING_COUNTS,
    NoVarySearch,
    parse_no_vary_search,
)

__all__ = ["Resource", "SearchRules", "origin_of"]

_PART = ((b"range", b"part"),)
_MOST_RULES = 1_000


class SearchRules:
    """What `No-Vary-Search` said last of each path, for the most recent thousand paths that said something.

    A rule only says under which further key to look: what is stored there carried the same rule itself.
    """

    def __init__(self) -> None:
        # By the key of a path.
        self.known: OrderedDict[bytes, NoVarySearch] = OrderedDict()

    def learn(self, base: bytes, rule: NoVarySearch) -> None:
        """Take note of a response's rule."""
        if rule == EVERYTHING_COUNTS:
            self.known.pop(base, None)
            return
        self.known[base] = rule
        self.known.move_to_end(base)
        if len(self.known) > _MOST_RULES:
            self.known.popitem(last=False)


def origin_of(scope: Scope) -> tuple[str, bytes]:
    """The scheme, and the authority as the client names it."""
    return str(scope.get("scheme", "http")), (combined(scope["headers"], b"host") or b"").lower()


def _rule_in(headers: RawHeaders) -> NoVarySearch:
    lines = values(headers, b"no-vary-search")
    return parse_no_vary_search(lines) if lines else EVERYTHING_COUNTS


class Resource:
    """One request's resource.

    The key holds scheme, host, the root path, the path that the app routes by, the path as it was sent (`%2F` is no
    slash to a proxy) and the raw query. A layer outside may have changed one of the two paths, so both count. A host
    that is spelled in another way is another resource: the app is handed it as it was sent.
    """

    def __init__(self, exchange: Exchange, options: HeaderOptions, rules: SearchRules) -> None:
        app_context, scope = exchange.app_context, exchange.arrived
        self.exchange = exchange
        self.options = options
        self._rules = rules
        origin, root_path = origin_of(scope), app_context.root_of(scope)
        self.origin = f"{origin[0]}://{origin[1].decode('latin-1')}"
        self.path = below(root_path, scope["path"])
        self._query: bytes = scope.get("query_string", b"")
        # The app may see how the host was spelled, whatever it is.
        hosts = sent_host(values(scope["headers"], b"host"), scope.get("server"))
        sent = (sent_path(scope.get("raw_path"), self._query), *hosts)
        # A framework has a root path of its own, a mount or a layer outside has written its own here.
        place = app_context.headers_place(scope)
        # The whole path: an app of another kind may answer by more than what is below the root path.
        self._parts = app_context.key_parts("headers", origin, root_path, scope["path"])._replace(
            sent=encode((*place[1:], *sent)), local=app_context.headers_local_part(place)
        )
        self.split = bool(self._query)
        self.key = self._key(b"headers", self._query)
        self.hidden: frozenset[bytes] = frozenset() if app_context.emit_surrogate_key else TAGS
        self._keys: tuple[NoVarySearch | None, tuple[bytes, ...]] = (None, (self.key,))

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Under which an answer may be stored, by the rule of now: what was waited for may have brought one."""
        known = self._rules.known
        rule = known.get(self._base) if known else None
        if rule != self._keys[0]:
            self._keys = (rule, (self.key,) if rule is None else (self.key, self._folded(rule)))
        return self._keys[1]

    def _key(self, *query: bytes) -> bytes:
        return cache_key(self._parts._replace(query=query))

    @cached_property
    def _base(self) -> bytes:
        """The key of the path, whatever the query."""
        return self._key(b"path")

    @property
    def part_key(self) -> bytes:
        """The key under which a part of the resource is kept."""
        return variant_key(self.key, _PART)

    def _folded(self, rule: NoVarySearch) -> bytes:
        kept = map(as_bytes, rule.significant(self._query))
        only = None if rule.only is None else sorted(rule.only)
        said = as_bytes(repr((sorted(rule.ignored), only, rule.order)))
        return self._key(b"folded", said, *kept)

    def learn(self, headers: RawHeaders) -> None:
        """Take note of what a stored response says of queries."""
        rule = _rule_in(headers)
        if self._rules.known or rule != EVERYTHING_COUNTS:
            self._rules.learn(self._base, rule)

    def key_for(self, headers: RawHeaders) -> bytes:
        """The key under which a response is kept: the resource's own, or that of all equivalent queries."""
        rule = _rule_in(headers)
        return self.key if rule == EVERYTHING_COUNTS else self._folded(rule)

    def received(
        self, asked: Asked, status: int, headers: RawHeaders, added: tuple[str, ...], *, ranged: bool = False
    ) -> Received:
        """A response as it came to this request, and what was known when it was asked for."""
        exchange, app_context, scope = self.exchange, self.exchange.app_context, self.exchange.scope
        return Received(
            asked=asked,
            key=self.key_for(headers),
            path=self.path,
            origin=self.origin,
            stamp=exchange.stamp,
            began=exchange.stamp.began,
            status=status,
            headers=headers,
            added=added,
            now=app_context.engine.now(),
            wall=app_context.cache.clock.wall(),
            hidden=self.hidden,
            route=exchange.route,
            trace=exchange.entered.trace,
            ranged=ranged,
            # Most apps are in no other; where mounts have come to is in the scope once they have.
            inner=app_context.inner_paths(exchange.arrived, scope) if scope.get("root_path") else (),
            answerer=exchange.answerer if isinstance(exchange, HeaderRead) else unseen,
        )
