"""Asking a test's request again: what is stored for a caller, and what the app would answer that caller."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.decide import Serve
from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.asking_again import (
    Heard,
    answer_of_app,
    answer_stored,
    plain_again,
    says_the_same,
)
from fastapi_cacheinval.grammar.fields import RawHeaders
from fastapi_cacheinval.routes.plan import RoutePlan, Sharing
from fastapi_cacheinval.routes.stricter import stricter
from fastapi_cacheinval.testing.searches.callers import Asked, Caller
from fastapi_cacheinval.testing.searches.findings import Costs

__all__ = ["Answer", "Asking", "InStore", "answer_of"]

_T = TypeVar("_T")
_SHOWN = 120
_UNANSWERED = 500
_TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, the fields and a body."""

    status: int
    headers: RawHeaders
    body: bytes

    def says_the_same(self, other: Answer) -> bool:
        """Whether a client is told the same."""
        return says_the_same(self, other)

    def __str__(self) -> str:
        text = self.body[:_SHOWN].decode("utf-8", "replace")
        return f"{self.status} {text!r}{'...' if len(self.body) > _SHOWN else ''}"


@dataclass(frozen=True, slots=True)
class InStore:
    """What is stored for a request; `answer` is what a caller gets of it now, `stale` whether it is past its time."""

    answer: Answer
    stored: StoredResponse
    stale: bool


class Asking:
    """One request for a cached route, and everybody who may ask it. Raises nothing of the app's: it counts that."""

    def __init__(self, asked: Asked, app_context: AppContext, runtime: Runtime, plan: RoutePlan, costs: Costs) -> None:
        self.asked = asked
        self.plan = plan
        self._app_context = app_context
        self._runtime = runtime
        self._costs = costs

    @classmethod
    def of(cls, asked: Asked, costs: Costs) -> Asking | None:
        """For a request to a route with a policy; None for any other, and where the cache is not at work."""
        middleware = asked.middleware
        app_context: AppContext = middleware._app_context  # noqa: SLF001 - what it knows of its app
        core = internals_of(middleware.cache)
        if not app_context.ready or not core.enabled or not core.running:
            return None
        scope = asked.scope
        plan = app_context.table.match("GET", scope["path"], scope)
        if plan is None or plan.policy is None or plan.sharing is Sharing.UNPROVED:
            return None
        return cls(asked, app_context, core.runtime, plan, costs)

    @property
    def line(self) -> str:
        """What the route's signature says has to be written; empty where it says nothing."""
        scope = self.asked.scope
        known = self._app_context.table.known("GET", scope["path"], scope)
        return "" if known is None else stricter(known)

    def usable(self, stored: StoredResponse) -> bool:
        """Whether a stored response would be handed out as fresh."""
        engine = self._app_context.engine
        return isinstance(engine.decide(stored, engine.now()), Serve)

    async def stored(self, caller: Caller) -> InStore | None:
        """What the cache would hand to a caller; None where it would ask the app, or refuse."""
        scope = self._again(caller)
        front = self.asked.middleware.at_front(scope)
        if front is not None:
            return InStore(Answer(front.status, [*front.headers], front.body), front, stale=False)
        found = await self._run(caller, answer_stored(self._app_context, self._runtime, scope))
        if found is None:
            return None
        heard, order = found
        told, stored = order.told, order.stored
        if told is None or stored is None or told.result not in (Result.HIT, Result.STALE):
            return None
        return InStore(answer_of(heard), stored, stale=told.result is Result.STALE)

    async def app(self, caller: Caller) -> Answer | None:
        """What the app says to a caller; None where it fails, or has been asked too often."""
        heard = await self._run(caller, answer_of_app(self._app_context, self._runtime, self._again(caller)))
        if heard is None or heard.status >= _UNANSWERED or heard.status == _TOO_MANY:
            self._costs.failed += 1
            return None
        return answer_of(heard)

    async def instead(self, caller: Caller, handed: Answer) -> Answer | None:
        """What the app says to a caller instead of this, twice; None where it says this, fails, or is unsteady."""
        said = await self.app(caller)
        if said is None or said.says_the_same(handed):
            return None
        again = await self.app(caller)
        steady = again is not None and again.says_the_same(said)
        self._costs.unsteady += not steady
        return said if steady else None

    def _again(self, caller: Caller) -> dict[str, Any]:
        engine = self._app_context.engine
        scope = self.asked.by(caller)
        return {**plain_again(scope, scope["headers"], engine.replica.stamp(engine.now()))}

    async def _run(self, caller: Caller, work: Coroutine[Any, Any, _T]) -> _T | None:
        """Run in the context that layers outside leave for the caller."""
        self._costs.asked += 1
        task = self._runtime.loop.create_task(work, context=self.asked.context(caller))
        try:
            return await task
        except Exception:  # noqa: BLE001 - what the app raises, it raises to nobody
            return None


def answer_of(heard: Heard) -> Answer:
    """What was heard."""
    return Answer(heard.status, heard.headers, bytes(heard.body))
