"""What an audit of an app's routes tells: who shares each cached page and why, and which mutations purge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Audit", "MutationAudit", "RouteAudit", "SharedBy", "TagHole"]

SharedBy = Literal["everyone", "partition", "guarded", "declared", "nobody"]
"""Who may be handed a stored response: all, who has the same partition, who passes the guards, all by the author's word
(`shared=True`), or nobody, because the route is refused."""


@dataclass(frozen=True, slots=True)
class RouteAudit:
    """One cached route.

    `route` is its label, as in `statistics().routes`; `endpoint` the handler's qualified name. `why` says in words why
    its responses may be shared with whom `shared_by` names; `partition_by` and `guarded_by` name dependencies.
    `key` are the parts of the cache key, `tags` the templates, `adds_tags` whether more are found while answering.
    `ttl`, `stale_while_revalidate` and `stale_if_error` are seconds. `lookup` is where it is answered: `front` before
    routing, or `route`; `front_off` is what turned the front off. `purged_by` are labels of mutations, `PUT /a` say.
    """

    route: str
    endpoint: str
    shared_by: SharedBy
    why: str
    partition_by: tuple[str, ...]
    guarded_by: tuple[str, ...]
    key: tuple[str, ...]
    tags: tuple[str, ...]
    adds_tags: bool
    ttl: float
    stale_while_revalidate: float
    stale_if_error: float
    lookup: Literal["front", "route"]
    front_off: str | None
    purged_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MutationAudit:
    """One route with unsafe methods.

    `tags` are the templates that it purges, `adds_tags` whether it may purge more, `purges_paths` whether its target's
    path is purged, `only_reads` that it is declared to purge nothing. `purges` are the labels of the cached routes that
    it may purge.
    """

    route: str
    endpoint: str
    tags: tuple[str, ...]
    adds_tags: bool
    purges_paths: bool
    only_reads: bool
    purges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TagHole:
    """A tag in one place only: declared by cached routes and purged by nothing, or purged and declared by nothing.

    `routes` are the labels of where it is, and `near` is a tag on the other side that may have been meant.
    """

    tag: str
    declared: bool
    routes: tuple[str, ...]
    near: str | None = None

    def __str__(self) -> str:
        what = "declared and never purged" if self.declared else "purged and never declared"
        meant = "." if self.near is None else f". Is {self.near!r} meant?"
        return f"{self.tag!r} is {what} ({', '.join(self.routes)}){meant}"


@dataclass(frozen=True, slots=True)
class Audit:
    """All that an app's routes say of caching, in matching order.

    `uncached` are the labels of GET routes without a policy. `by_headers` is whether those are cached by what their
    responses say. `changes_elsewhere` is whether purges also come from elsewhere: from sessions that are watched, or
    from events. `refusals` is why the app would not start, `warnings` what works and not as its author will expect.

    The holes: `unpurged` are cached routes that no mutation purges, `purging_nothing` mutations that purge no cached
    route, `lonely_tags` tags in one place only. Where purges come from elsewhere, tags are added while answering, or
    pages are cached by headers, a hole that they may fill is none.
    """

    routes: tuple[RouteAudit, ...] = ()
    mutations: tuple[MutationAudit, ...] = ()
    uncached: tuple[str, ...] = ()
    by_headers: bool = False
    changes_elsewhere: bool = False
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unpurged: tuple[str, ...] = ()
    purging_nothing: tuple[str, ...] = ()
    lonely_tags: tuple[TagHole, ...] = ()

    @property
    def holes(self) -> tuple[str, ...]:
        """Each hole as a line, refusals first; empty where all is well."""
        return (
            *self.refusals,
            *(f"{route} is cached, and no mutation purges it." for route in self.unpurged),
            *(f"{route} purges nothing that is cached." for route in self.purging_nothing),
            *(f"The tag {hole}" for hole in self.lonely_tags),
        )

    def joined(self, other: Audit) -> Audit:
        """This and another app's of the same cache; the holes are those of each."""
        return Audit(
            (*self.routes, *other.routes),
            (*self.mutations, *other.mutations),
            (*self.uncached, *other.uncached),
            self.by_headers or other.by_headers,
            self.changes_elsewhere or other.changes_elsewhere,
            (*self.refusals, *other.refusals),
            (*self.warnings, *other.warnings),
            (*self.unpurged, *other.unpurged),
            (*self.purging_nothing, *other.purging_nothing),
            (*self.lonely_tags, *other.lonely_tags),
        )
