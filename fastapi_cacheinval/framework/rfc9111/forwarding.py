"""One GET, HEAD or background refresh under `honour_headers` on its way forward, to be stored by what comes back."""

from __future__ import annotations

from dataclasses import replace

from fastapi_cacheinval.core.outcome import Reason
from fastapi_cacheinval.core.rfc9111.asking import fields_forwarded, read_request
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.response import is_for, is_for_the_app_to_cut
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.coalescing import Go
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.incoming import Entered, Incoming
from fastapi_cacheinval.framework.rfc9111.exchange import HeaderRead
from fastapi_cacheinval.framework.rfc9111.filling import HeaderRules
from fastapi_cacheinval.framework.rfc9111.head import HeadUpdate
from fastapi_cacheinval.framework.rfc9111.resource import Resource, SearchRules

__all__ = ["Forwarding"]


class Forwarding:
    """The request as an exchange, what it asks of the cache, and what it is for."""

    def __init__(
        self, incoming: Incoming, options: HeaderOptions, rules: SearchRules, entered: Entered | None = None
    ) -> None:
        self.incoming = incoming
        self.app_context = incoming.app_context
        self._options = options
        self._rules = rules
        self.exchange = HeaderRead(incoming, entered)
        scope = incoming.scope
        extensions = scope.get("extensions")
        self.asked = read_request(scope["method"], self.exchange.client_headers, options, extensions)
        self.resource = Resource(self.exchange, options, rules)
        self.exchange.key = self.resource.key

    async def forward(self, go: Go, *, whole: bool = False) -> None:
        """Forward as a fill; with the stored response's validators where it has some (RFC 9111 section 4.3.1).

        `whole` asks without any condition, because a 304 to the validators spoke of another response.
        """
        exchange, stored, refreshing = self.exchange, self.resource.usable(go.stale), self.exchange.refresh is not None
        engine = self.app_context.engine
        usable = stored is not None and engine.stale_from(stored, engine.now()) is not None
        others = stored is not None and not is_for(self.asked, stored)
        kept = stored if usable and not others else None
        # Those who wait for a flight want the whole.
        asks_for_part = self.asked.ranges is not None and go.flight is None and not whole
        for_part = asks_for_part and (kept is None or is_for_the_app_to_cut(self.asked, kept))
        as_it_came = for_part or (go.flight is None and kept is None and not refreshing and not whole)
        condition = [] if kept is None or whole or for_part else kept.validators
        rules = HeaderRules(
            self.resource,
            self.asked,
            stale=kept,
            validating=kept if condition else None,
            unconfirmed=kept if whole and not refreshing else None,
            for_part=for_part,
            for_others=not (self.asked.authorized or others),
        )
        fill = Fill(exchange, rules, replace(go, stale=kept))
        self.app_context.counters.forwarded(go.reason, None)
        try:
            await exchange.forward(
                fill, fields_forwarded(self.asked, None if as_it_came else condition, ranged=for_part)
            )
        except BaseException:
            if fill.contradicted and go.flight is not None:
                go.flight.fail()
            raise
        if fill.contradicted:
            await self._again(go)

    async def _again(self, go: Go) -> None:
        """Ask for the whole, as a request of its own, within the same request of the client."""
        before = self.exchange
        scope = {**before.arrived, "headers": [*before.client_headers]}
        if "state" in scope:
            scope["state"] = dict(scope["state"])
        incoming = self.incoming._replace(scope=scope, receive=before.receive)
        again = Forwarding(incoming, self._options, self._rules, before.came_again(incoming))
        # The request's own outcome is this one's: the other answer was of no use.
        again.exchange.looks_up()
        self.exchange = again.exchange
        again.exchange.is_answered_here()
        try:
            await again.forward(go, whole=True)
        finally:
            again.exchange.is_answered()

    async def forward_head(self, stored: StoredResponse | None, reason: Reason) -> None:
        """Forward as HEAD: its fields may freshen what is stored, or show that it is outdated (section 4.3.5)."""
        self.app_context.counters.forwarded(reason, None)
        update = HeadUpdate(self.resource, self.asked, self.resource.usable(stored), reason)
        await self.exchange.forward_head(update, fields_forwarded(self.asked, None, ranged=False))
