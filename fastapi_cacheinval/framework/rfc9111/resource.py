"""What a request is for: its key, its origin, and what No-Vary-Search has told of its query."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from math import inf

from starlette.types import Scope

from fastapi_cacheinval.core.downstream import TAGS
from fastapi_cacheinval.core.keys import as_bytes, below, cache_key, encode, sent_host, sent_path, variant_key
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.storing import Received, asking, forbids
from fastapi_cacheinval.core.rfc9111.validating import Newer
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.rfc9111.exchange import HeaderRead, foreseen, has_policy
from fastapi_cacheinval.grammar.fields import RawHeaders, combined, values
from fastapi_cacheinval.grammar.no_vary_search import (
    EVERYTHING_COUNTS,
    NoVarySearch,
    parse_no_vary_search,
)

__all__ = ["Resource", "SearchRules", "origin_of", "part_key"]

_PART = ((b"range", b"part"),)
_MOST_PATHS = 1_000
_MOST_RULES = 4


class SearchRules:
    """What `No-Vary-Search` has said of each path, for the most recent thousand paths that said something.

    The last rule says under which further key to look: what is stored there carried the same rule itself. Up to three
    older ones say where else something may be stored, to be found once one of them is said again.
    """

    def __init__(self) -> None:
        # By the key of a path, the last one first.
        self.known: OrderedDict[bytes, tuple[NoVarySearch, ...]] = OrderedDict()

    def learn(self, base: bytes, rule: NoVarySearch) -> None:
        """Take note of a response's rule."""
        before = self.known.get(base, ())
        if not before and rule == EVERYTHING_COUNTS:
            return
        self.known[base] = (rule, *(other for other in before if other != rule))[:_MOST_RULES]
        self.known.move_to_end(base)
        if len(self.known) > _MOST_PATHS:
            self.known.popitem(last=False)


def origin_of(scope: Scope) -> tuple[str, bytes]:
    """The scheme, and the authority as the client names it."""
    return str(scope.get("scheme", "http")), (combined(scope["headers"], b"host") or b"").lower()


def part_key(key: bytes) -> bytes:
    """The key under which a part is kept of what would be kept whole under this one."""
    return variant_key(key, _PART)


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
        self._keys: tuple[NoVarySearch, tuple[bytes, ...]] = (EVERYTHING_COUNTS, (self.key,))

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Where an answer is looked for, by the rule of now: what was waited for may have brought one."""
        known = self._rules.known
        said = known.get(self._base) if known else None
        rule = said[0] if said else EVERYTHING_COUNTS
        if rule != self._keys[0]:
            self._keys = (rule, tuple(dict.fromkeys((self.key, self._key_by(rule)))))
        return self._keys[1]

    def _key(self, *query: bytes) -> bytes:
        return cache_key(self._parts._replace(query=query))

    @cached_property
    def _base(self) -> bytes:
        """The key of the path, whatever the query."""
        return self._key(b"path")

    @property
    def part_keys(self) -> list[bytes]:
        """Where a part is looked for."""
        return [part_key(key) for key in self.keys]

    def _key_by(self, rule: NoVarySearch) -> bytes:
        """The resource's own key, or that of all queries which are equivalent by a rule."""
        if rule == EVERYTHING_COUNTS:
            return self.key
        kept = map(as_bytes, rule.significant(self._query))
        only = None if rule.only is None else sorted(rule.only)
        said = as_bytes(repr((sorted(rule.ignored), only, rule.order)))
        return self._key(b"folded", said, *kept)

    def kept(self, asked: Asked, stored: StoredResponse) -> None:
        """A response is stored: what it says of queries holds from now on, and it takes the place of what was there."""
        rule, known, engine = _rule_in(stored.headers), self._rules.known, self.exchange.app_context.engine
        if known or rule != EVERYTHING_COUNTS:
            self._rules.learn(self._base, rule)
        if isinstance(stored, SharedResponse) and stored.part is not None:
            engine.has_parts = True
        if known or engine.has_parts:
            self.let_go_elsewhere(Newer(asked, stored.status, stored.headers, None, kept=True, beside=stored))

    def let_go(self, newer: Newer) -> None:
        """Let go of all that is outdated of what the request may be given, now or once an older rule is said again."""
        exchange, store = self.exchange, self.exchange.app_context.engine.store
        rules = (*self._rules.known.get(self._base, ()), _rule_in(newer.headers))
        for key in dict.fromkeys((self.key, *map(self._key_by, rules))):
            # Nobody asks others for parts; and before a part was asked for, others were asked for the whole.
            for each, shared in ((key, newer.of_the_whole), (part_key(key), False)):
                if shared or store.peek(each) is not None:
                    exchange.outdate(each, exchange.client_headers, newer.spares)

    def let_go_elsewhere(self, newer: Newer) -> None:
        """The same, where anything may be stored under another key than the own one."""
        if self.exchange.app_context.engine.has_parts or (self._rules.known and self._base in self._rules.known):
            self.let_go(newer)

    def usable(self, stored: StoredResponse | None) -> SharedResponse | None:
        """A stored response; None where a guess or a rule lets it be reused, and not in place of what answers now."""
        if not isinstance(stored, SharedResponse):
            return None
        if stored.guessed or stored.ruled:
            app_context, arrived = self.exchange.app_context, self.exchange.arrived
            now = app_context.engine.now()
            if now >= stored.spares_until:
                elsewhere = stored.stamp.began == -inf
                if forbids(foreseen(app_context, arrived, elsewhere=elsewhere), ruled=stored.ruled):
                    return None
                stored.spares_until = now + app_context.table.longest_trust
        return stored

    @property
    def has_policy(self) -> bool:
        """Whether the route that answers GET here has a `cached()` of its own."""
        return has_policy(self.exchange.app_context, self.exchange.arrived)

    def received(
        self, asked: Asked, status: int, headers: RawHeaders, added: tuple[str, ...], *, ranged: bool = False
    ) -> Received:
        """A response as it came to this request, and what was known when it was asked for."""
        exchange, app_context, scope = self.exchange, self.exchange.app_context, self.exchange.scope
        return Received(
            asked=asked,
            key=self._key_by(_rule_in(headers)),
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
            answerer=exchange.answerer if isinstance(exchange, HeaderRead) else asking,
        )
