"""The errors of the package: one root, one class per condition, each carrying its evidence."""

from __future__ import annotations

import re

__all__ = [
    "CacheNotRunning",
    "CacheinvalError",
    "CallerDependentRoute",
    "ConfigurationError",
    "LogUnavailable",
    "MiddlewareMissing",
    "PurgeNotDelivered",
    "ReplicasUnknown",
    "SettingIsFixed",
    "TierUnavailable",
    "UnknownRoute",
]


class CacheinvalError(Exception):
    """The root of every error that this package raises."""


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


_HANDLER_READS = (
    " No dependency covers what the handler reads itself: move that into a dependency and name it, or, in place "
    "of the raw request, declare the parameters that the handler needs."
)


_ROUTE_READS = (
    " No dependency covers what the route itself is handed: only shared=True helps, or a plain route. Code that is to "
    "run around several routes can be a middleware, whose changes go to their own caller alone."
)


_LOOKS_LIKE_A_CREDENTIAL = re.compile(r"the handler .*\bHeader\(\) .*\((\S+) looks like a credential\)")
_NO_CREDENTIAL = (
    " If a Header() with such a name holds no credential, say so: cached(..., vary={}) keeps one stored response per "
    "value, and a hit skips what the handler does with it."
)


class CallerDependentRoute(ConfigurationError):
    """A cached route whose answer may depend on who asks, under a policy that does not say how.

    `route` is its path, `parameters` what reads the caller, each as `where: what`. `advice` says why the covers that
    are given fall short, and which line works.
    """

    def __init__(self, route: str, parameters: tuple[str, ...], advice: str = "") -> None:
        self.route = route
        self.parameters = parameters
        self.advice = advice
        reads = "; ".join(parameters)
        varied = [found[1] for each in parameters if (found := _LOOKS_LIKE_A_CREDENTIAL.match(each))]
        super().__init__(
            f"The cached route {route} may answer each caller differently: {reads}. "
            "Choose one of three ways out: partition_by=<the dependency> keeps one stored response "
            "per value of it; guarded_by=<the dependency> runs it on every request and shares the "
            "response among all who pass; shared=True is your word that the response is the same "
            "for all and that these dependencies need not run on a hit."
            + (f" {advice}" if advice else "")
            + (_HANDLER_READS if any(each.startswith("the handler ") for each in parameters) else "")
            + (_NO_CREDENTIAL.format(varied) if varied else "")
            + (_ROUTE_READS if any(each.startswith("the route: ") for each in parameters) else "")
        )


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
    the log can be reached; a cache that has not been started queues nothing.
    """

    def __init__(self, tags: tuple[str, ...], reason: str, *, queued: bool = True) -> None:
        self.tags = tags
        self.reason = reason
        self.queued = queued
        super().__init__(
            f"The invalidation of {len(tags)} tag(s) could not be written to the log ({reason}). "
            + (
                "It is queued and its tags are fenced on this replica; do not repeat it, watch "
                "statistics().queue_length."
                if queued
                else "It is not queued, because the cache is not started here: repeat it, or use `async with cache:`."
            )
        )


class LogUnavailable(CacheinvalError):
    """The purge log could not be reached, or refused; `reason` says why. It stays inside: no request raises it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The purge log is out of reach: {reason}.")


class TierUnavailable(CacheinvalError):
    """The shared tier could not be reached, or refused; `reason` says why. It stays inside: requests go forward."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The shared tier is out of reach: {reason}.")


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
