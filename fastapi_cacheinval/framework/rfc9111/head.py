"""What a HEAD tells of a stored GET response (RFC 9111 section 4.3.5)."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from starlette.types import Message

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.freshness import passed_on
from fastapi_cacheinval.core.rfc9111.response import SharedResponse, is_for
from fastapi_cacheinval.core.rfc9111.storing import OF_THE_REQUEST
from fastapi_cacheinval.core.rfc9111.validating import HeadSays, Newer, head_says, speaks_of_get
from fastapi_cacheinval.framework.responding import status_fields
from fastapi_cacheinval.framework.rfc9111.making import freshened_as, judged_as
from fastapi_cacheinval.framework.rfc9111.resource import Resource
from fastapi_cacheinval.grammar.fields import RawField, lower_names

__all__ = ["HeadUpdate"]


class HeadUpdate:
    """Passes the app's answer to a HEAD on, and lets its fields freshen the stored response to GET."""

    def __init__(self, resource: Resource, asked: Asked, stored: SharedResponse | None, reason: Reason) -> None:
        self._resource = resource
        self._asked = asked
        self._stored = stored
        self._reason = reason
        self._begun = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        exchange = self._resource.exchange
        if message["type"] == "http.response.start" and not self._begun:
            self._begun = True
            headers = lower_names(message.get("headers", ()))
            renewed = self._update(message["status"], headers)
            outcome = Outcome(Result.MISS, reason=self._reason, stored=renewed)
            exchange.told(outcome)
            fields = [*passed_on(headers, self._resource.hidden), *status_fields(exchange.app_context, outcome)]
            message = {**message, "headers": fields}
        await exchange.outer(message)

    async def ended(self) -> None:
        """Nothing is left to do."""

    async def failed(self, error: BaseException) -> bool:
        """The error is the app's to answer."""
        return False

    def _update(self, status: int, headers: list[RawField]) -> bool:
        """Freshen the stored response, or let go of what is outdated; whether it was freshened."""
        old, engine = self._stored, self._resource.exchange.app_context.engine
        if speaks_of_get(status) and not self._asked.authorized:
            self._resource.let_go_elsewhere(self._as_of_get(status, headers, beside=old))
        if old is None or not is_for(self._asked, old):
            # What one caller is told says nothing of what strangers share.
            return False
        match head_says(old, status, headers):
            case HeadSays.NOTHING:
                return False
            case HeadSays.UNKNOWN:
                # Stale, it is validated before its next use; fresh, it would not be.
                if engine.remaining(old, engine.now()) >= 0:
                    self._doubt(old)
                return False
            case HeadSays.CHANGED:
                self._outdate(status, headers)
                return False
            case HeadSays.THE_SAME:
                return engine.stale_from(old, engine.now()) is not None and self._renewed(old, headers)

    def _doubt(self, old: SharedResponse) -> None:
        """Take a response for stale, as section 4.3.5 has it: it is validated, and stands in for errors, as it may."""
        exchange = self._resource.exchange
        engine = exchange.app_context.engine
        if self._asked.authorized:
            return
        now = engine.now()
        stale = copy(old)
        stale.fresh_until = min(old.fresh_until, now)
        engine.put(stale, now)
        if exchange.runtime.l2 is not None:
            exchange.runtime.l2.drop(old.key)

    def _outdate(self, status: int, headers: list[RawField]) -> None:
        # As with a GET: a refusal, or a page of one's own, may be for who is authorized alone.
        if not self._asked.authorized:
            self._resource.let_go(self._as_of_get(status, headers))

    def _as_of_get(self, status: int, headers: list[RawField], beside: SharedResponse | None = None) -> Newer:
        asked = replace(self._asked, method="GET")
        judged = judged_as(self._resource, self._resource.received(asked, status, headers, ()))
        return Newer(asked, status, headers, judged.refusal, beside=beside)

    def _renewed(self, old: SharedResponse, headers: list[RawField]) -> bool:
        engine, asked = self._resource.exchange.app_context.engine, replace(self._asked, method="GET")
        made, refused = freshened_as(self._resource, asked, old, headers)
        if refused is not None:
            if refused not in OF_THE_REQUEST:
                self._outdate(old.status, headers)
            return False
        now = engine.now()
        stored = engine.offer(made.key, made.stored, made.chosen, now)
        if stored:
            self._resource.kept(asked, made.stored)
        l2 = self._resource.exchange.runtime.l2
        if stored and l2 is not None:
            # The older one there has neither the tags nor the lifetime that are known now.
            if made.stored.fresh_until > now:
                l2.keep(made.key, made.stored, None, split=self._resource.split)
            else:
                l2.drop(old.key)
        return stored
