"""The lookup under `honour_headers`: before routing, by the request alone (RFC 9111 section 4)."""

from __future__ import annotations

from typing import assert_never

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.engine.coalescing import Answer, Coalescing, Go, Gone, Missed
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.responding import send_504, without_body
from fastapi_cacheinval.framework.rfc9111.answering import send_kept
from fastapi_cacheinval.framework.rfc9111.asker import HeaderAsker
from fastapi_cacheinval.framework.rfc9111.exchange import HeaderRead, has_policy
from fastapi_cacheinval.framework.rfc9111.forwarding import Forwarding
from fastapi_cacheinval.framework.rfc9111.resource import SearchRules

__all__ = ["HeaderLookup"]


class HeaderLookup:
    """One GET or HEAD: answered from what is stored, or forwarded and stored by what comes back."""

    def __init__(self, incoming: Incoming, options: HeaderOptions, rules: SearchRules) -> None:
        self.incoming = incoming
        self.app_context = incoming.app_context
        self.engine = self.app_context.engine
        self._forwarding = Forwarding(incoming, options, rules)
        self.asked = self._forwarding.asked
        self.send = without_body(incoming.send) if self.asked.method == "HEAD" else incoming.send

        async def refresh(incoming: Incoming) -> None:
            await HeaderLookup(incoming, options, rules).refresh()

        self.asker = HeaderAsker(self._forwarding.resource, self.asked, refresh)

    @property
    def exchange(self) -> HeaderRead:
        """The request as it is on its way now."""
        return self._forwarding.exchange

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
        order = self.incoming.order
        if order is not None and order.forced:
            if self._has_policy():
                return False
            await self.refresh()
            return True
        coalescing = Coalescing(self.engine, self.incoming.runtime, self.asker)
        looked = coalescing.look()
        if isinstance(looked, Answer):
            await self._answer(looked)
            return True
        if self._has_policy():
            return False
        found = await self._further(coalescing, looked)
        match found:
            case Answer():
                await self._answer(found)
            case Gone(reason):
                await self._refuse(reason, "cancelled")
            case Go():
                await self._forwarding.forward(found)
            case None:
                pass
            case _:
                assert_never(found)
        return True

    async def _further(self, coalescing: Coalescing, missed: Missed) -> Answer | Go | Gone | None:
        """Where L1 has nothing; None where the request is answered already."""
        asked = self.asked
        if asked.directives.only_if_cached or asked.method == "HEAD" or asked.ranges is not None:
            looked = await coalescing.look_further(missed)
            if isinstance(looked, Answer):
                return looked
            missed = looked
        if asked.directives.only_if_cached:
            await self._refuse(missed.reason, "only-if-cached")
            return None
        if asked.method == "HEAD":
            await self._forwarding.forward_head(missed.stored, missed.reason)
            return None
        exchange = self.exchange
        if await exchange.receive.has_bytes(self.incoming.scope):
            await self._plainly("content")
            return None
        with exchange.current():
            return await coalescing.run(missed)

    def _has_policy(self) -> bool:
        """Whether the route's own policy is asked instead; if not, this is the lookup."""
        if has_policy(self.app_context, self.incoming.scope):
            return True
        self.exchange.looks_up()
        return False

    async def _not_ours(self) -> str | None:
        """Why the request is forwarded as it came, whatever is stored."""
        if self.incoming.closed is not None:
            return self.incoming.closed
        if self.asked.for_origin:
            return "precondition"
        return "content" if await self.exchange.receive.has_content(self.incoming.scope) else None

    async def _refuse(self, reason: Reason, detail: str) -> None:
        """A 504, for who wants nothing but what is stored (RFC 9111 section 5.2.1.7) and for who is gone."""
        outcome = Outcome(Result.MISS, reason=reason, detail=detail)
        self.exchange.told(outcome)
        await send_504(self.send, self.app_context, outcome)

    async def _answer(self, answer: Answer) -> None:
        stored = answer.stored
        assert isinstance(stored, SharedResponse)
        if answer.refresh:
            self.asker.order(stored.key, stored)
        now = self.engine.now()
        outcome = self.engine.outcome(stored, answer.result, answer.reason, now, answer.fwd_status, answer.tier)
        self.exchange.told(outcome, stored)
        await send_kept(self.send, self.app_context, stored, self.asked, outcome)

    # -- going forward --------------------------------------------------------------------------

    async def _plainly(self, detail: str) -> bool:
        """Forward the request as it came, and keep nothing; a 504 for who wants nothing forwarded."""
        if self._has_policy():
            return False
        if self.asked.directives.only_if_cached and self.incoming.closed is None:
            await self._refuse(Reason.BYPASS, "only-if-cached")
            return True
        await self.exchange.forward_plainly(detail)
        return True

    async def refresh(self) -> None:
        """Forward as the leader of the flight that this was ordered for."""
        order = self.incoming.order
        assert order is not None
        stored, _, _ = self.asker.find_whole()
        await self._forwarding.forward(Go(order.take(), stored, Reason.STALE))
