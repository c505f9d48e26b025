"""The errors of the package: one root, one class per condition, each carrying its evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = [
    "CacheNotRunning",
    "CacheinvalError",
    "CallerDependentRoute",
    "ConfigurationError",
    "LogUnavailable",
    "MiddlewareMissing",
    "PurgeNotDelivered",
    "RefusedRoute",
    "RefusedRoutes",
    "ReplicasUnknown",
    "SettingIsFixed",
    "TierUnavailable",
    "UnknownRoute",
]


class CacheinvalError(Exception):
    """The root of every error that this package raises; it can be copied and pickled, as task queues do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[CacheinvalError], args: tuple[object, ...]) -> CacheinvalError:
    # Past its own `__init__`, which takes what the message is made of.
    return kind.__new__(kind, *args)


class ConfigurationError(CacheinvalError):
    """A setting, a policy or a route that cannot work; raised when it is made, or at start-up."""


class UnknownRoute(ConfigurationError):
    """No route that answers GET has this name and takes these parameters.

    `name` is the name, `near` the names that resemble it.
    """

    def __init__(self, name: str, why: str, near: tuple[str, ...] = ()) -> None:
        self.name = name
        self.near = near
        super().__init__(f"{why} Near: {', '.join(map(repr, near))}." if near else why)


class SettingIsFixed(ConfigurationError, AttributeError):
    """An attribute was assigned that cannot be set, or that there is none of; nothing has changed."""


class RefusedRoute(ConfigurationError):
    """A route that cannot do what it declares; the app does not start.

    `route` is its path, `cause` what is wrong, `cure` what to write. `trails` are the ways through its dependency tree
    from the handler to what causes it, each as `read_cart → current_user → OAuth2PasswordBearer`. `told` is the
    message; without it the message is made of the others.
    """

    def __init__(
        self, route: str, cause: str, cure: str = "", *, trails: tuple[str, ...] = (), told: str | None = None
    ) -> None:
        self.route = route
        self.cause = cause
        self.cure = cure
        self.trails = trails
        super().__init__(f"{route}: {cause} {cure}".rstrip() if told is None else told)


_HANDLER = r"^the handler (.*?): "
_WAYS = (
    "partition_by keeps one stored response per value of a dependency. guarded_by runs a dependency on every request, "
    "and all who pass share the response. With shared=True a hit runs none of them: it is no way out where one of them "
    "checks who asks."
)


class CallerDependentRoute(RefusedRoute):
    """A cached route whose answer may depend on who asks, under a policy that does not say how.

    `route` is its path, `parameters` what reads the caller, each as `where: what`. `advice` says why the covers that
    are given fall short, and which line works. `trails` are the ways from the handler to what reads the caller.
    """

    def __init__(
        self,
        route: str,
        parameters: tuple[str, ...],
        advice: str = "",
        trails: tuple[str, ...] = (),
        *,
        of_handlers: str = "",
    ) -> None:
        """`of_handlers` is the advice as it stands for several handlers of one cause: without the name of any."""
        self.parameters = parameters
        self.advice = advice
        self.of_handlers = of_handlers
        reads = "; ".join(parameters)
        by = f" (by {'; '.join(trails)})" if trails else ""
        super().__init__(
            route,
            # Routes whose handlers read the same have one cause.
            "; ".join(dict.fromkeys(re.sub(_HANDLER, "the handler: ", each) for each in parameters)),
            advice,
            trails=trails,
            told=f"The cached route {route} may answer each caller differently: {reads}{by}. {_WAYS} {advice}".rstrip(),
        )


class RefusedRoutes(RefusedRoute):
    """Everything that keeps an app from starting, at once: the message groups it by cause, and `errors` has each.

    The errors stand in the order in which the routes are matched; the other attributes are those of the first one.
    """

    errors: tuple[ConfigurationError, ...]

    @staticmethod
    def of(errors: Sequence[ConfigurationError]) -> ConfigurationError:
        """The error to raise: the only one as it is, several in one.

        Several are a `CallerDependentRoute` as well where the first one is.
        """
        if len(errors) == 1:
            return errors[0]
        first = errors[0]
        if isinstance(first, CallerDependentRoute):
            return _CallerDependentRoutes(tuple(errors), first)
        return RefusedRoutes(tuple(errors))

    def __init__(self, errors: tuple[ConfigurationError, ...]) -> None:
        first = errors[0]
        self.errors = errors
        of = first if isinstance(first, RefusedRoute) else RefusedRoute("", str(first))
        # By name: a subclass has another parent between.
        RefusedRoute.__init__(self, of.route, of.cause, of.cure, trails=of.trails, told=_grouped(errors))


class _CallerDependentRoutes(RefusedRoutes, CallerDependentRoute):
    """Several, of which the first is caller-dependent."""

    def __init__(self, errors: tuple[ConfigurationError, ...], first: CallerDependentRoute) -> None:
        RefusedRoutes.__init__(self, errors)
        self.parameters = first.parameters
        self.advice = first.advice


def _by(error: RefusedRoute) -> str:
    """The handler that reads the caller itself, which the cause does not name."""
    parameters = error.parameters if isinstance(error, CallerDependentRoute) else ()
    found = next(filter(None, (re.match(_HANDLER, each) for each in parameters)), None)
    return f": {found[1]}" if found else ""


def _grouped(errors: Sequence[ConfigurationError]) -> str:
    """All errors in one text: each cause once, with the routes that have it and the line to write."""
    causes: dict[tuple[str, str], list[ConfigurationError]] = {}
    for error in errors:
        in_common = error.of_handlers if isinstance(error, CallerDependentRoute) else ""
        key = (error.cause, in_common or error.cure) if isinstance(error, RefusedRoute) else (str(error), "")
        causes.setdefault(key, []).append(error)
    routes = {error.route for error in errors if isinstance(error, RefusedRoute)}
    lines = [f"The app does not start: {len(routes)} routes cannot be what they declare, for {len(causes)} cause(s)."]
    if any(isinstance(error, CallerDependentRoute) for error in errors):
        lines.append(f"Cached routes may answer each caller differently. {_WAYS}")
    for number, ((cause, cure), found) in enumerate(causes.items(), 1):
        lines += ["", f"{number}. {cause}"]
        for error in found:
            if isinstance(error, RefusedRoute):
                lines += [f"   {error.route}: {trail}" for trail in error.trails] or [f"   {error.route}{_by(error)}"]
        alone = found[0].cure if len(found) == 1 and isinstance(found[0], RefusedRoute) else cure
        lines += [f"   {alone}"] if alone else []
    return "\n".join(lines)


class MiddlewareMissing(ConfigurationError):
    """A route declares invalidations, but no `CacheMiddleware` is in the stack to publish them."""

    def __init__(self, route: str) -> None:
        self.route = route
        super().__init__(
            f"{route} declares invalidates(), but the request did not pass a CacheMiddleware, so "
            "nothing would be invalidated. Add it: app.add_middleware(CacheMiddleware, cache=cache)."
        )


class CacheNotRunning(CacheinvalError):
    """A call that needs a running cache was made before its start, after its stop or off its loop."""


class PurgeNotDelivered(CacheinvalError):
    """An invalidation that has no number yet: the log could not be reached.

    `tags` are those it names. Where it is `queued` they are fenced on this replica, and it is written as soon as
    the log can be reached; a cache that has not been started queues nothing. `cure` is what else there is to do.
    """

    def __init__(self, tags: tuple[str, ...], reason: str, *, queued: bool = True, cure: str = "") -> None:
        self.tags = tags
        self.reason = reason
        self.queued = queued
        self.cure = cure
        super().__init__(
            f"The invalidation of {len(tags)} tag(s) could not be written to the log ({reason}). "
            + (
                "It is queued and its tags are fenced on this replica; do not repeat it, watch "
                "statistics().queue_length."
                if queued
                else cure
                or "It is not queued, because the cache is not started here: repeat it, or use `async with cache:`."
            )
        )


class LogUnavailable(CacheinvalError):
    """The purge log could not be reached, or refused; `reason` says why. It stays inside: no request raises it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The purge log is out of reach: {reason}.")


class TierUnavailable(CacheinvalError):
    """L2 could not be reached, or refused; `reason` says why. It stays inside: requests go forward."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"L2 is out of reach: {reason.rstrip('.')}.")


class ReplicasUnknown(CacheinvalError):
    """A purge has its number, `term` and `seq`, but whether every replica has applied it could not be found out."""

    def __init__(self, term: int, seq: int, reason: str) -> None:
        self.term = term
        self.seq = seq
        self.reason = reason
        super().__init__(
            f"The invalidation is written ({term}/{seq}), and every replica in touch with the log obeys it, but the "
            f"log could not be asked which have applied it ({reason}). Do not repeat it; whoever depends on all "
            "replicas waits for staleness_bound."
        )
