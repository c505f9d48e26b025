"""The outer end of the cache: a CDN in front is told what it may keep, and everybody else is told nothing of it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Message, Scope, Send

from fastapi_cacheinval.core.downstream import (
    LIFETIMES,
    TAGS,
    age_sent,
    forbidden_by_fields,
    keep_for,
    named,
    without_downstream,
)
from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.grammar.fields import RawField, lower_names
from fastapi_cacheinval.ports.downstream import Downstream
from fastapi_cacheinval.routes.plan import LOOKED_UP, RoutePlan

__all__ = ["CDNFields", "cdn_fields_of"]

_FOR_CDNS = TAGS | LIFETIMES
# What may stand for a stored response in an answer: itself, the word that the asker has it, a part of it.
_STANDS_FOR_IT = (304, 206)


class CDNFields:
    """A `send` that writes into each answer of a cached route what the CDN in front may make of it.

    It may keep what is known to be whole, stored, fresh or still of use, and open to everybody without asking the app:
    exactly what the front lookup may answer with. Of all else it is told not to keep it. Answers of routes without a
    policy pass as they are.
    """

    __slots__ = (
        "_answered",
        "_app_context",
        "_asked",
        "_downstream",
        "_outcome",
        "_route",
        "_stored",
        "scope",
        "server",
    )

    def __init__(self, app_context: AppContext, downstream: Downstream, scope: Scope, send: Send) -> None:
        self._app_context = app_context
        self._downstream = downstream
        # As it came: layers inside may take fields off a request.
        self._asked = downstream.asks(scope["headers"])
        self._answered = False
        self._stored: StoredResponse | None = None
        self._outcome: Outcome | None = None
        self._route: str | None = None
        # Where the router writes which route it has found.
        self.scope = scope
        self.server = send

    async def __call__(self, message: Message) -> None:
        """One message on its way to the server."""
        if message["type"] == "http.response.start":
            message = self._told(message)
        await self.server(message)

    def answered(self, outcome: Outcome, stored: StoredResponse | None, plan: RoutePlan | None) -> None:
        """How the answer that comes next has come about; `stored` is what is served, or was made of it to be stored."""
        self._answered = True
        open_to_all = plan is None or (plan.front and not plan.epoch)
        self._stored, self._outcome = (stored if open_to_all else None), outcome
        if plan is not None:
            self._route = plan.path
        elif stored is not None:
            self._route = stored.route

    def follow(self, scope: Scope) -> None:
        """Look for the route in this scope: what is asked inside has another than what came."""
        self.scope = scope

    def forbid(self) -> None:
        """The answer is one caller's own after all."""
        self._answered, self._stored = True, None

    def _told(self, message: Message) -> Message:
        if not self._answered and not self._of_cached_route():
            return message
        fields = lower_names(message.get("headers", ()))
        if not self._asked:
            return {**message, "headers": without_downstream(fields)}
        return {**message, "headers": self._for_cdn(message["status"], fields)}

    def _of_cached_route(self) -> bool:
        """Whether the route that answers has a policy, and did not come as far as its lookup."""
        if "route" not in self.scope:
            return False
        plan = self._app_context.table.plan_for(self.scope)
        return plan is not None and plan.policy is not None

    def _for_cdn(self, status: int, fields: list[RawField]) -> list[RawField]:
        allowed = self._allowed(status, fields)
        rest = [pair for pair in fields if pair[0] not in _FOR_CDNS]
        if isinstance(allowed, list):
            return [*rest, *allowed]
        if isinstance(allowed, str):
            self._app_context.notices.note_untold(self._route, allowed)
            rest = _with_detail(rest, allowed)
        return self._downstream.forbidding(rest)

    def _allowed(self, status: int, fields: list[RawField]) -> list[RawField] | str | None:
        """What lets the CDN keep it; why that cannot be said, or None where it must not be."""
        engine, stored, outcome = self._app_context.engine, self._stored, self._outcome
        if stored is None or outcome is None or (status != stored.status and status not in _STANDS_FOR_IT):
            return None
        replica = engine.replica
        # Without a lease nobody knows what has been purged, and behind a fence what is about to be committed.
        if not replica.live(engine.now()) or replica.fenced(stored.tags) or forbidden_by_fields(stored, fields):
            return None
        age = age_sent(fields)
        keep = None if age is None else keep_for(stored, outcome, age)
        if keep is None:
            return None
        tags, path = named(stored)
        return self._downstream.allowing(fields, tags, path, keep)


def cdn_fields_of(app_context: AppContext, scope: Scope, send: Send) -> CDNFields | None:
    """The outer end for a request that a CDN may have sent; None where there is none, or nothing could be kept."""
    downstream = app_context.downstream
    if downstream is None or scope["method"] not in LOOKED_UP:
        return None
    return CDNFields(app_context, downstream, scope, send)


def _with_detail(fields: Sequence[RawField], detail: str) -> list[RawField]:
    """The fields with a word more in our own `Cache-Status`, unless it says why already."""
    return [
        (name, value + b"; detail=" + detail.encode())
        if name == b"cache-status" and value.startswith(b"cacheinval;") and b"detail=" not in value
        else (name, value)
        for name, value in fields
    ]
