"""What a request would get that is not made: nothing is counted, locked or kept, no handler and no dependency runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from fastapi_cacheinval.core.decide import Serve, ServeStale, decide
from fastapi_cacheinval.core.events import PurgeEvent, digest_of
from fastapi_cacheinval.core.explanation import Explanation, Tier, copy_of, forwarded_because
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result, cache_status
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import shown_tags, with_reserved
from fastapi_cacheinval.errors import ConfigurationError, TierUnavailable
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.deciding import shown_request
from fastapi_cacheinval.framework.route_target import Wanted, wanted_of
from fastapi_cacheinval.routes.auditing import Around, cover_name, key_parts_of, path_params_of, shared_by_of, tags_of
from fastapi_cacheinval.routes.plan import LOOKED_UP, SAFE_METHODS, RoutePlan, Sharing

__all__ = ["Explaining"]


@dataclass(frozen=True, slots=True)
class _Asks:
    """A request that is not made."""

    app_context: AppContext
    arrived: Scope

    @property
    def client_headers(self) -> list[tuple[bytes, bytes]]:
        return [*self.arrived["headers"]]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a tier has for a request, and what may be made of it."""

    stored: StoredResponse
    tier: Tier
    stale_from: float | None


class Explaining:
    """One explanation, of the request that a scope stands for; `partition` has the values of the route's partition."""

    def __init__(self, app_context: AppContext, scope: Scope, partition: tuple[object, ...] | None) -> None:
        self._app_context = app_context
        self._engine = app_context.engine
        self._runtime = app_context.cache.runtimes.get(asyncio.get_running_loop())
        self._partition = partition
        self._method = str(scope["method"]).upper()
        # A HEAD is its GET without the content, and is looked up as that.
        self._scope: dict[str, Any] = {**scope, "method": "GET" if self._method == "HEAD" else self._method}
        self._asks = _Asks(app_context, self._scope)

    async def explain(self) -> Explanation:
        """What is known."""
        path, table = self._scope["path"], self._app_context.table
        plan = table.match(self._scope["method"], path, self._scope)
        told = Explanation(self._method, shown_request(self._scope, None if plan is None else plan.path), "bypass", "")
        if self._method not in LOOKED_UP:
            return self._of_mutation(told, plan)
        if plan is None or plan.policy is None:
            if self._app_context.mode.by_headers and (plan is None or not plan.decides):
                return await self._by_headers(replace(told, route=None if plan is None else plan.get_label))
            # Where no route answers all of them are looked through again: others have their turn in between.
            await asyncio.sleep(0)
            return self._uncached(told, plan)
        return await self._by_policy(told, plan)

    # -- what is not looked up ------------------------------------------------------------------

    def _of_mutation(self, told: Explanation, plan: RoutePlan | None) -> Explanation:
        if plan is None:
            return replace(told, because=f"No route of this app answers {self._method} here.")
        if self._method in SAFE_METHODS:
            because = f"{self._method} is not answered from the cache: only GET and HEAD are."
            return replace(told, route=f"{self._method} {plan.path}", reason="method", because=because)
        templates = dict.fromkeys(each.text for found in plan.invalidations for each in found.templates)
        tags = tuple(templates)
        what = f"It purges {', '.join(tags)}" if tags else "It declares no tags to purge"
        if plan.only_reads:
            what = "It is declared to purge nothing"
        elif Around(self._engine.settings.path_purges, self._app_context.mode.by_headers).purges_paths(plan):
            what += ", and the paths that it names"
        because = f"{self._method} is not answered from the cache. {what}."
        return replace(told, route=plan.mutation_label, reason="method", tags=tags, because=because)

    def _uncached(self, told: Explanation, plan: RoutePlan | None) -> Explanation:
        if plan is not None:
            why = "Its cached() is switched off (ttl=0)" if plan.switched_off else "The route declares no cached()"
            return replace(told, route=plan.get_label, because=f"{why}, so the app answers each request.")
        if self._app_context.table.answers("GET", self._scope["path"], self._scope):
            return replace(told, because="What answers here is no FastAPI route, and has no policy.")
        return replace(told, because=f"No route of this app answers {self._method} here.")

    def _closed(self, plan: RoutePlan) -> tuple[str, str] | None:
        if not self._app_context.cache.enabled:
            return "disabled", "The cache is switched off."
        if plan.sharing is Sharing.UNPROVED:
            return "caller-dependent", f"The route may answer each caller differently: {'; '.join(plan.uncovered)}."
        return None

    # -- by policy ------------------------------------------------------------------------------

    async def _by_policy(self, told: Explanation, plan: RoutePlan) -> Explanation:
        policy = plan.policy
        assert policy is not None
        shared_by, why = shared_by_of(plan)
        authorized = any(name == b"authorization" for name, _ in self._scope["headers"])
        front_off = "the request has Authorization" if plan.front and authorized else plan.front_off
        told = replace(
            told,
            route=plan.get_label,
            shared_by=shared_by,
            why=why,
            key_parts=key_parts_of(plan),
            lookup="route" if front_off else "front",
            front_off=front_off,
            unknown=tuple(
                f"whether {name} lets this caller pass: it runs on every request, a hit included"
                for name in map(cover_name, policy.guards)
            ),
        )
        path = self._app_context.below_root(self._scope, self._scope["path"])
        request = Request({**self._scope, "path_params": path_params_of(plan, path)})
        tags = tags_of(plan, request)
        told = replace(
            told,
            tags=tags or (),
            last_purge=self._last_purge((*(tags or ()), *self._reserved())),
        )
        closed = self._closed(plan)
        if closed is not None:
            return self._bypassed(told, *closed)
        lacks = self._lacks(plan)
        if lacks:
            because = "What is stored depends on the caller, and the caller is not known."
            return replace(told, result="unknown", because=because, unknown=(*told.unknown, *lacks))
        wanted = wanted_of(self._asks, request, plan, policy, self._partition or ())
        if not isinstance(wanted, Wanted):
            return self._bypassed(told, "partition", f"The partition is no part of a key: {wanted}.")
        return await self._looked_up(told, (wanted.key,), wanted.headers, valid=tags is not None)

    def _lacks(self, plan: RoutePlan) -> list[str]:
        """What of the key is the caller's, and was not given."""
        policy = plan.policy
        assert policy is not None
        names = tuple(map(cover_name, policy.partition))
        if self._partition is not None and len(self._partition) != len(names):
            raise ConfigurationError(f"partition has a value for each of {', '.join(names) or 'no dependency'}.")
        lacks = [] if self._partition is not None else [f"what {name} gives for this caller" for name in names]
        return lacks + [f"the path parameter {name}, which the path does not hold" for name in plan.elsewhere]

    # -- by headers -----------------------------------------------------------------------------

    async def _by_headers(self, told: Explanation) -> Explanation:
        told = replace(
            told,
            shared_by="everyone",
            why="honour_headers: a response is shared if its own headers allow it",
            key_parts=("scheme", "host", "path", "path as it was sent", "all of the query"),
            lookup="route",
            front_off="responses by headers are looked up behind the front",
            unknown=("what Cache-Control of the request asks for",),
        )
        if not self._app_context.cache.enabled:
            return self._bypassed(told, "disabled", "The cache is switched off.")
        told = replace(told, last_purge=self._last_purge(self._reserved()))
        keys = self._app_context.mode.keys_of(self._asks)
        return await self._looked_up(told, keys, self._asks.client_headers, valid=True)

    # -- what is stored -------------------------------------------------------------------------

    def _reserved(self) -> tuple[str, ...]:
        """The tags that whatever is stored for the request has, whatever its response says."""
        path = self._app_context.below_root(self._scope, self._scope["path"])
        return with_reserved((), path, self._app_context.inner_paths(self._scope, self._scope))

    def _last_purge(self, tags: tuple[str, ...]) -> PurgeEvent | None:
        return self._app_context.cache.feed.purges.last_of(tags)

    async def _looked_up(
        self, told: Explanation, keys: tuple[bytes, ...], headers: list[tuple[bytes, bytes]], *, valid: bool
    ) -> Explanation:
        engine = self._engine
        stored, forwarded, varied = self._in_l1(keys, headers)
        elsewhere, away = await self._in_l2(keys[-1], headers)
        tiers: tuple[tuple[StoredResponse | None, Tier], ...] = ((stored, "l1"), (elsewhere, "l2"))
        usable = self._app_context.mode.usable
        found = [self._judged(kept, tier) for each, tier in tiers if (kept := usable(self._asks, each)) is not None]
        now, wall = engine.now(), engine.clock.wall()
        copies = tuple(copy_of(each.stored, each.tier, each.stale_from, now, wall) for each in found)
        told = replace(told, key=digest_of(forwarded), stored=copies)
        if found:
            told = replace(
                told, tags=shown_tags(found[0].stored.tags), last_purge=self._last_purge(found[0].stored.tags)
            )
        for each in found:
            match decide(each.stored, each.stale_from, now, 1.0):
                case Serve(response):
                    return self._answered(told, engine.outcome(response, Result.HIT, None, now, tier=each.tier))
                case ServeStale(response):
                    return self._answered(told, engine.outcome(response, Result.STALE, None, now, tier=each.tier))
                case _:
                    pass
        if not valid:
            because = "A parameter is not valid: nothing is stored, and the app says what is wrong."
            return self._bypassed(told, "invalid", because)
        return self._forwarded(told, found, forwarded, varied=varied, away=away)

    def _judged(self, stored: StoredResponse, tier: Tier) -> _Found:
        engine = self._engine
        return _Found(stored, tier, engine.replica.stale_from(stored.stamp, stored.tags, engine.now()))

    def _in_l1(
        self, keys: tuple[bytes, ...], headers: list[tuple[bytes, bytes]]
    ) -> tuple[StoredResponse | None, bytes, bool]:
        """What this process has for a request, the key of its forward, and whether only `Vary` missed."""
        forwarded, varied = keys[-1], False
        for key in keys:
            stored, variant = self._engine.peek(key, headers)
            if stored is not None:
                return stored, variant, False
            if variant != key:
                forwarded, varied = variant, True
        return None, forwarded, varied

    async def _in_l2(self, key: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[StoredResponse | None, str | None]:
        """What replicas share for a request, and why they cannot be asked, if so."""
        l2 = None if self._runtime is None else self._runtime.l2
        if l2 is None:
            return None, None
        if not l2.open:
            return None, "disconnected"
        try:
            return await l2.peek(key, headers), None
        except TierUnavailable:
            return None, "l2-unavailable"

    # -- the answer -----------------------------------------------------------------------------

    def _answered(self, told: Explanation, outcome: Outcome) -> Explanation:
        fresh = outcome.result is Result.HIT
        where = "in this process" if outcome.tier == "l1" else "in Redis"
        because = (
            f"A fresh response is stored {where}."
            if fresh
            else f"The response stored {where} is stale, and may be served while it is refreshed."
        )
        return self._said(told, outcome, because)

    def _forwarded(
        self, told: Explanation, found: list[_Found], key: bytes, *, varied: bool, away: str | None
    ) -> Explanation:
        purged = bool(found) and all(each.stale_from is None for each in found)
        stale = any(each.stale_from is not None for each in found)
        reason = Reason.STALE if stale else Reason.VARY_MISS if varied else Reason.URI_MISS
        because = forwarded_because(reason, purged=purged)
        if not found and told.last_purge is not None:
            because = f"{because} The last purge of its tags is remembered."
        if self._runtime is not None and self._runtime.flights.under_way(key) is not None:
            because = f"{because} Another request is being answered by the app, and this one would wait for that."
            return self._said(told, Outcome(Result.COLLAPSED, reason=reason), because)
        return self._said(told, Outcome(Result.MISS, reason=reason, detail=away), f"{because} The app would answer.")

    def _bypassed(self, told: Explanation, detail: str, because: str) -> Explanation:
        return self._said(told, Outcome(Result.BYPASS, reason=Reason.BYPASS, detail=detail), because)

    @staticmethod
    def _said(told: Explanation, outcome: Outcome, because: str) -> Explanation:
        return replace(
            told,
            result=outcome.result.value,
            reason=None if outcome.reason is None else outcome.reason.value,
            detail=outcome.detail,
            cache_status=cache_status(outcome).decode("latin-1"),
            because=because,
        )
