"""The lookup under `honour_headers`: before routing, by the request alone (RFC 9111 section 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.rfc9111.asking import Asked, fields_forwarded, read_request
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.coalescing import Answer, Coalescing, Go, Missed
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.incoming import Entered, Incoming
from fastapi_cacheinval.framework.refresh import lead_in_background
from fastapi_cacheinval.framework.responding import status_fields, without_body
from fastapi_cacheinval.framework.rfc9111.answering import send_kept
from fastapi_cacheinval.framework.rfc9111.asker import HeaderAsker
from fastapi_cacheinval.framework.rfc9111.exchange import HeaderRead, has_policy
from fastapi_cacheinval.framework.rfc9111.filling import HeaderRules
from fastapi_cacheinval.framework.rfc9111.head import HeadUpdate
from fastapi_cacheinval.framework.rfc9111.resource import Resource, SearchRules
from fastapi_cacheinval.grammar.fields import first

__all__ = ["HeaderLookup"]

_OF_THE_CLIENT = frozenset({b"cache-control", b"pragma"})


def _announces_content(asked: Asked) -> bool:
    length = first(asked.headers, b"content-length")
    return first(asked.headers, b"transfer-encoding") is not None or (length is not None and length.strip() != b"0")


class HeaderLookup:
    """One GET or HEAD: answered from what is stored, or forwarded and stored by what comes back."""

    def __init__(
        self, incoming: Incoming, options: HeaderOptions, rules: SearchRules, entered: Entered | None = None
    ) -> None:
        scope, send = incoming.scope, incoming.send
        self.incoming = incoming
        self.app_context = incoming.app_context
        self.engine = self.app_context.engine
        self.scope = scope
        self.options = options
        self.rules = rules
        self.exchange = HeaderRead(incoming, entered)
        self.asked = read_request(scope["method"], self.exchange.client_headers, options)
        self.resource = Resource(self.exchange, options, rules)
        self.exchange.key = self.resource.key
        self.send = without_body(send) if scope["method"] == "HEAD" else send
        self.asker = HeaderAsker(self.resource, self.asked, lambda key: self._order(key, None))

    # -- the request ----------------------------------------------------------------------------

    async def run(self) -> bool:
        """Answer the client; False, with nothing done, where the route has a policy of its own."""
        try:
            return await self._run()
        except BaseException as error:
            self.exchange.lookup_over(error)
            raise
        finally:
            self.exchange.lookup_over()

    async def _run(self) -> bool:
        detail = await self._not_ours()
        if detail is not None:
            return await self._plainly(detail)
        order = self.exchange.refresh
        if order is not None and order.forced:
            if self._has_policy():
                return False
            await self.refresh()
            return True
        coalescing = Coalescing(self.engine, self.incoming.runtime, self.asker)
        found: Answer | Missed | Go = coalescing.look()
        if isinstance(found, Missed):
            if self._has_policy():
                return False
            if self.asked.directives.only_if_cached:
                await self._refuse(found.reason)
                return True
            if self.asked.method == "HEAD":
                await self._forward_head(self._whole(found.stored), found.reason)
                return True
            if await self.exchange.receive.has_content():
                return await self._plainly("content")
            with self.exchange.current():
                found = await coalescing.run(found)
        match found:
            case Answer():
                await self._answer(found)
            case Go():
                await self._forward(found)
            case _:
                assert_never(found)
        return True

    @staticmethod
    def _whole(stored: StoredResponse | None) -> SharedResponse | None:
        return stored if isinstance(stored, SharedResponse) else None

    def _has_policy(self) -> bool:
        """Whether the route's own policy is asked instead; if not, this is the lookup."""
        if has_policy(self.app_context, self.scope):
            return True
        self.exchange.looks_up()
        return False

    async def _not_ours(self) -> str | None:
        """Why the request is forwarded as it came, whatever is stored."""
        if self.incoming.closed is not None:
            return self.incoming.closed
        if self.asked.for_origin:
            return "precondition"
        # HTTP/1 announces content by a field (RFC 9112 section 6.3), later versions need none.
        silent = not str(self.scope.get("http_version", "")).startswith("1")
        has_content = _announces_content(self.asked) or (silent and await self.exchange.receive.has_content())
        return "content" if has_content else None

    async def _refuse(self, reason: Reason) -> None:
        """RFC 9111 section 5.2.1.7: a 504 for who wants nothing but what is stored."""
        outcome = Outcome(Result.MISS, reason=reason, detail="only-if-cached")
        self.exchange.told(outcome)
        headers = [(b"content-length", b"0"), *status_fields(self.app_context, outcome)]
        await self.send({"type": "http.response.start", "status": 504, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    async def _answer(self, answer: Answer) -> None:
        stored = answer.stored
        assert isinstance(stored, SharedResponse)
        if answer.refresh:
            self._order(stored.key, stored)
        now = self.engine.now()
        outcome = self.engine.outcome(stored, answer.result, answer.reason, now, answer.fwd_status, answer.tier)
        self.exchange.told(outcome, stored)
        await send_kept(self.send, self.app_context, stored, self.asked, outcome)

    # -- going forward --------------------------------------------------------------------------

    async def _plainly(self, detail: str) -> bool:
        """Forward the request as it came, and keep nothing."""
        if self._has_policy():
            return False
        await self.exchange.forward_plainly(detail)
        return True

    async def _forward(self, go: Go, *, whole: bool = False) -> None:
        """Forward as a fill; with the stored response's validators where it has some (RFC 9111 section 4.3.1).

        `whole` asks without any condition, because a 304 to the validators spoke of another response.
        """
        exchange, stored, refreshing = self.exchange, self._whole(go.stale), self.exchange.refresh is not None
        usable = stored is not None and self.engine.stale_from(stored, self.engine.now()) is not None
        kept = stored if usable and not (self.asked.authorized and stored is not None and not stored.for_all) else None
        # Those who wait for a flight want the whole.
        for_part = self.asked.ranges is not None and kept is None and go.flight is None and not whole
        as_it_came = for_part or (go.flight is None and kept is None and not refreshing and not whole)
        condition = [] if kept is None or whole else kept.validators
        rules = HeaderRules(
            self.resource,
            self.asked,
            stale=kept,
            validating=kept if condition else None,
            unconfirmed=kept if whole and not refreshing else None,
            part_key=self.resource.part_key if for_part else None,
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
            await self._forward_again(go)

    async def _forward_again(self, go: Go) -> None:
        """Ask for the whole, as a request of its own, within the same request of the client."""
        before = self.exchange
        scope = {**before.arrived, "headers": [*before.client_headers]}
        if "state" in scope:
            scope["state"] = dict(scope["state"])
        incoming = self.incoming._replace(scope=scope, receive=before.receive)
        lookup = HeaderLookup(incoming, self.options, self.rules, incoming.entered(before.entered))
        # The request's own outcome is this one's: the other answer was of no use.
        lookup.exchange.looks_up()
        self.exchange = lookup.exchange
        lookup.exchange.is_answered_here()
        try:
            await lookup._forward(go, whole=True)
        finally:
            lookup.exchange.is_answered()

    async def _forward_head(self, stored: SharedResponse | None, reason: Reason) -> None:
        """Forward as HEAD: its fields may freshen what is stored, or show that it is outdated (section 4.3.5)."""
        self.app_context.counters.forwarded(reason, None)
        update = HeadUpdate(self.resource, self.asked, stored, reason)
        await self.exchange.forward_head(update, fields_forwarded(self.asked, None, ranged=False))

    # -- in the background ----------------------------------------------------------------------

    def _order(self, key: bytes, stored: StoredResponse | None) -> bool:
        """Forward once more in the background, leading the key; False where somebody is at it or there is no room."""
        varied = frozenset(name for name, _ in stored.vary) if stored is not None else frozenset[bytes]()
        dropped = CONDITIONAL_FIELDS | (_OF_THE_CLIENT - varied)

        async def forward(incoming: Incoming) -> None:
            await HeaderLookup(incoming, self.options, self.rules).refresh()

        exchange = self.exchange
        return lead_in_background(
            exchange.app_context, exchange.runtime, exchange.entered, forward, key, dropped=dropped, newer_than=stored
        )

    async def refresh(self) -> None:
        """Forward as the leader of the flight that this was ordered for."""
        order = self.exchange.refresh
        assert order is not None
        stored, _, _ = self.asker.find_whole()
        await self._forward(Go(order.take(), stored, Reason.STALE))
