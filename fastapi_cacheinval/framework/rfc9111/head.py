"""What a HEAD tells of a stored GET response (RFC 9111 section 4.3.5)."""

from __future__ import annotations

from dataclasses import replace

from starlette.types import Message

from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.building import Received, freshened, judge, make
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.storing import OF_THE_REQUEST
from fastapi_cacheinval.core.rfc9111.targeted import passed_on
from fastapi_cacheinval.core.rfc9111.validating import HeadSays, head_says
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.framework.answering import RawField, status_fields
from fastapi_cacheinval.framework.rfc9111.resource import Resource

__all__ = ["HeadUpdate"]


class HeadUpdate:
    """Passes the app's answer to a HEAD on, and lets its fields freshen the stored response to GET."""

    def __init__(self, resource: Resource, asked: Asked, stored: SharedResponse | None, reason: Reason) -> None:
        self._resource = resource
        self._asked = asked
        self._stored = stored
        self._reason = reason

    async def __call__(self, message: Message) -> None:
        exchange = self._resource.exchange
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            told = self._stored is not None and self._update(self._stored, message["status"], headers)
            outcome = Outcome(Result.MISS, reason=self._reason, stored=told)
            exchange.told(outcome)
            exchange.sink = exchange.outer
            message = {
                **message,
                "headers": [*passed_on(headers, self._resource.hidden), *status_fields(exchange.app_context, outcome)],
            }
        await exchange.outer(message)

    def _update(self, old: SharedResponse, status: int, headers: list[RawField]) -> bool:
        """Freshen the stored response, or let go of what is outdated; whether it was freshened."""
        exchange, engine = self._resource.exchange, self._resource.exchange.app_context.engine
        if self._asked.authorized and not old.for_all:
            # What one caller is told says nothing of what strangers share.
            return False
        match head_says(old, status, headers):
            case HeadSays.NOTHING:
                return False
            case HeadSays.UNKNOWN:
                # Stale, it is validated before its next use; fresh, it would not be.
                if engine.remaining(old, engine.now()) >= 0:
                    exchange.outdate(self._resource.recipe)
                return False
            case HeadSays.CHANGED:
                exchange.outdate(self._resource.recipe)
                return False
            case HeadSays.THE_SAME:
                return engine.stale_from(old, engine.now()) is not None and self._renewed(old, headers)

    def _renewed(self, old: SharedResponse, headers: list[RawField]) -> bool:
        exchange, engine = self._resource.exchange, self._resource.exchange.app_context.engine
        recipe = self._resource.recipe
        merged = freshened(old, headers)
        received = Received(
            asked=replace(self._asked, method="GET"),
            key=self._resource.key_for(merged),
            path=recipe.path,
            origin=self._resource.origin,
            stamp=recipe.stamp,
            began=recipe.began,
            status=old.status,
            headers=merged,
            added=tuple(tag for tag in old.tags if tag != ALL),
            now=engine.now(),
            wall=exchange.app_context.cache.clock.wall(),
            hidden=self._resource.hidden,
            route=exchange.route,
            trace=exchange.trace,
        )
        judged = judge(received, self._resource.options, engine.settings.max_body_bytes)
        if judged.refusal is not None:
            if judged.refusal not in OF_THE_REQUEST:
                exchange.outdate(recipe)
            return False
        stored, chosen = make(received, judged, old.body, self._resource.options)
        return engine.keep(self._resource.recipe_with(received.key), stored, chosen, engine.now())
