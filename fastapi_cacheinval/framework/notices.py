"""What an operator is told of an app: at its start, and of a route while it is served, each once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from fastapi_cacheinval.core.keys import PartitionTypeError
from fastapi_cacheinval.core.partition_by import UnusableKey
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.telemetry.counters import Counters

__all__ = ["Notices", "say_at_start", "unshared_partitions"]

logger = logging.getLogger("fastapi_cacheinval.middleware")

# uvicorn's log, which its workers under gunicorn use as well.
_SERVER = "uvicorn.error"
# What a CDN is to be told and cannot: words of `Downstream.allowing`.
_UNTOLD = {
    "tags": "their tags do not fit into its field. Give them fewer or shorter tags.",
    "vary": "it does not heed their Vary. Let them vary by Accept-Encoding alone.",
}


class Notices:
    """What one middleware has said, by route."""

    def __init__(self, counters: Counters, log_once: LogOnce) -> None:
        self._counters = counters
        self._log_once = log_once
        self._said: set[tuple[str, object]] = set()

    def _first(self, kind: str, what: object) -> bool:
        told = (kind, what)
        new = told not in self._said
        self._said.add(told)
        return new

    def note_uncached(self, plan: RoutePlan) -> None:
        """Say once that a route is not cached because what it has become reads the caller."""
        if self._first("uncached", plan.path):
            when = " while its dependencies are overridden" if plan.epoch else ""
            logger.warning("%s is not cached%s: %s", plan.path, when, "; ".join(plan.uncovered))

    def note_changed(self, plan: RoutePlan) -> None:
        """Say once that what stands before a route changes what the cache hands out there."""
        if self._first("changed", plan.path):
            logger.info(
                "%s changes responses of the cached route %s: each caller gets their own, and what is stored is what "
                "the route itself said. What writes the same for all is better added after CacheMiddleware.",
                ", ".join((*plan.layers, *plan.around)),
                plan.path,
            )

    def note_changed_late(self, plan: RoutePlan) -> None:
        """Say once that a stream was changed behind its first piece, so that its validators were another's."""
        if self._first("changed late", plan.path):
            logger.warning(
                "%s changes streams of the cached route %s behind their first piece, and leaves its ETag or "
                "Last-Modified: a client with such a stream may be told by a 304 that it has what the route said. This "
                "process uses them there no more. Take them away, or set others, in what changes the stream.",
                ", ".join((*plan.layers, *plan.around)),
                plan.path,
            )

    def changes_late(self, plan: RoutePlan) -> bool:
        """Whether `note_changed_late` was told of the route."""
        return ("changed late", plan.path) in self._said

    def note_partition(self, plan: RoutePlan, partition: tuple[object, ...], error: PartitionTypeError) -> None:
        """Say once that a route is not cached because what its partition gives is no part of a key."""
        unusable = next((each for each in partition if isinstance(each, UnusableKey)), None)
        level = self._log_once.level(("partition", plan.path))
        logger.log(
            level,
            "%s is not cached: %s",
            plan.path,
            error if unusable is None else unusable.why,
            exc_info=None if unusable is None else unusable.error,
            extra={"http.route": plan.path},
        )

    def note_ignored_tags(self, plan: RoutePlan) -> None:
        """Say once that a route's `tags.add()` does nothing: the declaration may stand on a router far away."""
        if self._first("ignored tags", plan.path):
            logger.info("%s adds tags, and invalidates_nothing() applies: they are not purged", plan.path)

    def note_untold(self, route: str | None, reason: str) -> None:
        """Count an answer that the CDN is forbidden to keep, because a field cannot carry all it needs.

        Warn once for each route and reason.
        """
        self._counters.downstream[reason] += 1
        if self._first("untold", (route, reason)):
            logger.warning("the CDN may not keep some responses of %s: %s", route, _UNTOLD.get(reason, reason))

    def note_private(self, route: str, said: bytes) -> None:
        """Say once that a partitioned or guarded route's answer would have been kept by shared caches downstream."""
        if self._first("private", route):
            logger.warning(
                "%s has a partition or a guard, and its answer said %r: a shared cache downstream would hand it to "
                "others. It is sent as private. Let the handler or middleware say Cache-Control: private there.",
                route,
                said.decode("latin-1"),
            )


def say_at_start(lines: Iterable[str], level: int = logging.INFO) -> None:
    """Say lines where people look: through the log of the app where it shows them, else through uvicorn's."""
    server = logging.getLogger(_SERVER)
    ours = logger.isEnabledFor(level) and logger.hasHandlers()
    for line in lines:
        (logger if ours or not server.hasHandlers() else server).log(level, "fastapi_cacheinval: %s", line)


def unshared_partitions(plans: Sequence[RoutePlan]) -> str | None:
    """The warning about partitions whose keys no other replica composes; None where no route has any."""
    paths = [plan.path for plan in plans if plan.policy is not None and plan.policy.partition]
    if not paths:
        return None
    return (
        f"Replicas do not share the partitioned pages of {', '.join(paths[:3])}{' and others' if paths[3:] else ''}: "
        "each has made a secret of its own. Give all the same one: "
        'HTTPCache.from_url(..., secret=os.environ["CACHEINVAL_SECRET"]), at least 16 characters.'
    )
