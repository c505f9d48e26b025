"""The app's routes in matching order, each with its plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.routing import Route

from fastapi_cacheinval.errors import RefusedRoutes
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, effective_route_at
from fastapi_cacheinval.routes.hooks import hook_known, hook_other
from fastapi_cacheinval.routes.middleware_stack import MiddlewareStack, middleware_stack_of
from fastapi_cacheinval.routes.named_routes import NamedRoute
from fastapi_cacheinval.routes.once import looking
from fastapi_cacheinval.routes.other_plans import OverriddenPlans, Strays, starts_of
from fastapi_cacheinval.routes.place import Place, Rounds
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.route_tree import Answering, Files, Known, Survey
from fastapi_cacheinval.routes.summary import summary, unmatched_tags

__all__ = ["RouteTable"]

logger = logging.getLogger("fastapi_cacheinval.routes")

# The routes that FastAPI adds, by name.
_OF_THE_DOCS = frozenset({"openapi", "redoc_html", "swagger_ui_html", "swagger_ui_redirect"})


class RouteTable:
    """The plans of all routes of an application, of its includes at any depth and of the apps mounted in it.

    Built at start; routes added later are found when the number of routes has changed, or at their first use.
    What is changed later on the way to a route, or of the route itself, is found when the route is next used.
    `front=True` is the author's word for the middleware inside ours; that of mounted apps still counts. `changed` is
    called when the front lookup may know responses of a route that is no longer what it was.
    """

    longest_trust = 0.02  # Seconds for which a route that was looked at is believed to be the same.

    def __init__(
        self, app: Any, inside: MiddlewareStack, *, front: bool | None = None, changed: Callable[[], None] | None = None
    ) -> None:
        self._app = inside.app if app is None else app
        self._inside = inside
        self._front = front
        self._changed = changed
        self._overridden = OverriddenPlans()
        self._strays = Strays()
        # The routes that requests have come to by ways that are not in the tree, and whether one of them was cached.
        self._unseen: set[int] = set()
        self._untold = False
        # Each that holds `dependency_overrides`, once; it only grows, because others may be reading it.
        self.providers: list[Any] = []
        # What the path of a cached route begins with; None where paths do not tell.
        self._starts: tuple[str, ...] | None = ()
        self._whole = False
        # What front hits skip; made by the first of them.
        self._fronts: Rounds | None = None
        self._survey = self._fresh()

    @property
    def _off(self) -> str | None:
        """What turns the front lookup off for the whole app."""
        if self._front is False:
            return "front=False"
        return None if self._front is True else self._inside.reason

    @looking()
    def _fresh(self) -> Survey:
        inside = self._inside
        place = Place(
            front_off=self._off,
            origin=inside.cors,
            commits=not inside.harmless,
            layers=inside.layers,
            writers=inside.writers,
            watched=inside.watched,
        )
        survey = Survey(self._app, place)
        self._whole = survey.whole
        for route in survey.others:
            self._whole = hook_other(route, layered=survey.layered) and self._whole
        for known in survey.known:
            hook_known(known, always=survey.layered)
            provider = known.analysis.plan.provider
            if provider is not None and not any(provider is other for other in self.providers):
                self.providers.append(provider)
        if self._starts is not None:
            self._starts = starts_of(survey)
        return survey

    def passes(self, path: str) -> bool:
        """Whether no cached route can have this path, which is one without a root path."""
        if self._survey.outdated:
            # Before the app has the request: the covers of a new route are to run in its order.
            self._refresh()
            return False
        starts = self._starts
        return starts is not None and not path.startswith(starts)

    def doubt(self) -> None:
        """A cached route had a path that none could have: paths do not tell any longer."""
        self._starts = None

    @property
    def survey(self) -> Survey:
        """The routes as they were looked at last."""
        return self._survey

    @property
    def plans(self) -> tuple[RoutePlan, ...]:
        """Every FastAPI route's plan, in matching order, overrides aside."""
        return tuple(known.analysis.plan for known in self._survey.known)

    def names(self) -> list[str]:
        """The routes that concern a cache, each by template and handler; all of them where none does."""
        concerned = [plan for plan in self.plans if plan.policy is not None or plan.invalidations]
        return [f"{plan.path} ({plan.endpoint})" for plan in concerned or self.plans]

    def named(self) -> list[NamedRoute]:
        """The routes that answer GET, by their names, in matching order."""
        self._refresh()
        found = [NamedRoute(known.route.name, known.analysis.plan) for known in self._survey.known]
        return [each for each in found if "GET" in each.plan.methods]

    def audit(self) -> None:
        """Raise everything that is wrong at once, in matching order; a single `ConfigurationError` as it is."""
        # One route may be reached by several ways, and is wrong once.
        found = {str(error): error for known in self._survey.known for error in known.analysis.errors}
        if found:
            raise RefusedRoutes.of([*found.values()])

    def warnings(self, *, by_headers: bool = False) -> list[str]:
        """What works, but not as its author will expect."""
        lines = [line for known in self._survey.known for line in known.analysis.warnings]
        return [*dict.fromkeys(lines), *self._survey.notices, *unmatched_tags(self.plans, more=by_headers)]

    def notes(self) -> list[str]:
        """What no signature shows, for authors to look at."""
        return [line for known in self._survey.known for line in known.analysis.notes]

    def describe(self) -> list[str]:
        """What turned the front lookup off, and where."""
        plans = [plan for plan in self.plans if plan.policy is not None]
        if self._off is not None:
            return [f"The front lookup is off for the whole app: {self._off}."] if plans else []
        return [f"The front lookup is off for {plan.path}: {plan.front_off}." for plan in plans if not plan.front]

    def summary(self, *, by_headers: bool = False) -> list[str]:
        """What is cached, how, and what turned the front lookup off: two lines, one where nothing is cached."""
        plain = [each for each in self._survey.others if isinstance(each, Route) and each.name not in _OF_THE_DOCS]
        return summary(self.plans, self._off, 0 if by_headers else len(plain))

    def plan_for(self, scope: Mapping[str, Any], arrived: Mapping[str, Any] | None = None) -> RoutePlan | None:
        """The plan of the route that answers, asked from inside it; None where no FastAPI route does.

        `arrived` is the request as it came to the middleware. A request that the tree of routes would not have brought
        to this route came by a way that nobody knows: its plan says so in `layers`. Where `arrived` is None, only what
        the route itself says may be used of the plan.
        """
        route = effective_route_at(scope)
        if route is None:
            return None
        if self._survey.changed:
            self._look_again()
        known = self._survey.taken(route, scope, arrived)
        if known is not None and known.place.watched.changed:
            self._look_again()
            known = self._survey.taken(route, scope, arrived)
        if known is None:
            known = self._strays.known(route) or self._meet(route)
        elif known.place.ordinal < 0 and id(route) not in self._unseen:
            self._unseen.add(id(route))
            hook_known(known)
            logger.info(
                "%s is also reached by a way that is not among the routes, such as an app that keeps another one in a "
                "closure. There it is cached behind whatever stands on that way, in this process alone.",
                route.path_format,
            )
        plan = self.current(known)
        self._untold = self._untold or (plan.ordinal < 0 and plan.policy is not None)
        return plan

    def by_plain_files(self, app: object, arrived: Mapping[str, Any]) -> bool:
        """Whether an app is the files that answer a request as it arrived, with nothing on the way that checks it."""
        found = self.led(arrived)
        return isinstance(found, Files) and found.are(app)

    def led(self, arrived: Mapping[str, Any]) -> Answering | None:
        """What answers a request as it arrived, if only with 405; None where no route is known to."""
        self._refresh()
        return self._survey.led(arrived)

    def sees_all(self) -> bool:
        """Whether each route that can be given an unsafe request notes its arrival from now on."""
        self._refresh()
        return self._whole

    def has(self, app: object) -> bool:
        """Whether this is one of the applications whose routes are here, or none at all."""
        return app is None or any(app is known for known in self._survey.apps)

    def match(self, method: str, path: str, scope: Mapping[str, Any]) -> RoutePlan | None:
        """The plan that would answer this method and decoded path, which includes the root path if there is one.

        `scope` gives the root path and the headers as they came in, before any mount wrote into it. None
        where no route, or none of FastAPI's, would answer with the method.
        """
        known = self.known(method, path, scope)
        return None if known is None else self.current(known)

    def cached_of(
        self, paths: Iterable[str], arrived: Mapping[str, Any], at: Mapping[str, Any] | None, plan: RoutePlan | None
    ) -> list[str]:
        """Those of some paths that a cached GET may answer: see `Survey.may_answer`; `plan` is that of the route."""
        self._refresh()
        if self._untold or (plan is not None and plan.ordinal < 0):
            # Who comes by a way that is not in the tree is told nothing by that.
            return [*paths]
        return [path for path in paths if self._survey.may_answer(path, arrived, at, self._is_cached)]

    def _is_cached(self, known: Known) -> bool:
        return self.current(known).policy is not None

    def known(self, method: str, path: str, scope: Mapping[str, Any]) -> Known | None:
        """The route as `match` finds it, without the overrides of now."""
        self._refresh()
        return self._survey.find(method, path, scope)

    def answers(self, method: str, path: str, scope: Mapping[str, Any]) -> bool:
        """Whether any route, FastAPI's or not, would answer this method and decoded path; `scope` as for `match`."""
        self._refresh()
        return self._survey.answered(method, path, scope)

    def head_of_get(self, path: str, scope: Mapping[str, Any]) -> bool:
        """Whether HEAD of this path is a cached GET without its content: no route has a HEAD of its own there."""
        if self.answers("HEAD", path, scope):
            return False
        known = self.known("GET", path, scope)
        return known is not None and self._is_cached(known)

    def current(self, known: Known) -> RoutePlan:
        """The plan, or that of the overridden tree while dependencies are overridden."""
        provider: Any = known.analysis.plan.provider
        overrides = getattr(provider, "dependency_overrides", None)
        return (self._overridden.of(known, overrides) if overrides else known).analysis.plan

    def look(self) -> bool:
        """Look at what a front hit skips, some routes at a time; whether any is no longer what was analysed."""
        survey = self._survey
        if self._fronts is None:
            self._fronts = Rounds(known.place.watched for known in survey.known if known.analysis.plan.front)
        if not survey.changed and not self._fronts.changed:
            return False
        self._look_again()
        return True

    def meet_websocket(self) -> None:
        """A WebSocket is coming in: its route may have been added since the routes were looked at."""
        self._refresh()

    def _refresh(self) -> None:
        """Look at the routes again where some were added, removed or replaced."""
        if self._survey.changed:
            self._look_again()

    def _look_again(self) -> None:
        before = self._survey
        self._inside = middleware_stack_of(self._inside.start)
        self._survey = self._fresh()
        self._fronts = None
        self._strays.clear()
        self._unseen.clear()
        self._overridden.clear()
        told = {(known.analysis.plan.path, str(error)) for known in before.known for error in known.analysis.errors}
        for known in self._survey.known:
            self._tell(known, told)
        for line in self._survey.notices:
            logger.warning("%s", line)
        gone = (
            known.changed or not self._survey.has(known.route) for known in before.known if known.analysis.plan.front
        )
        # What was put before a route may take its requests.
        if self._changed is not None and (any(gone) or not before.only_grew):
            self._changed()

    def _meet(self, route: EffectiveRoute) -> Known:
        """A route seen for the first time on a request, which the tree does not have."""
        known = self._strays.meet(route)
        hook_known(known)
        self._tell(known, set())
        return known

    @staticmethod
    def _tell(known: Known, told: set[tuple[str, str]]) -> None:
        for error in known.analysis.errors:
            if (known.analysis.plan.path, str(error)) not in told:
                logger.error("A route added or changed after the start is not cached: %s", error)
