"""Which mutation purges which cached page, by the shapes of tags and paths; and the tags that are in one place only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi_cacheinval.core.audit import TagHole
from fastapi_cacheinval.core.extent import PathReach, paths_named
from fastapi_cacheinval.routes.path_shapes import Paths
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.tag_shapes import Shapes, lonely, shape_of

__all__ = ["PurgeMap"]

Labels = dict[str, None]


class _Tags:
    """The tags of one side: by shape the text that was written, and the labels of the routes that have it."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.labels: dict[str, Labels] = {}

    def add(self, shape: str, text: str, label: str) -> None:
        self.texts.setdefault(shape, text)
        self.labels.setdefault(shape, {})[label] = None


class PurgeMap:
    """Made of the plans of cached routes and of those with unsafe methods; `reach` is how far these purge paths."""

    def __init__(self, cached: Sequence[RoutePlan], unsafe: Sequence[RoutePlan], reach: PathReach) -> None:
        self._declared, self._purged = _Tags(), _Tags()
        self._pages: dict[str, Labels] = {}
        self._mutations: dict[str, Labels] = {}
        paths = Paths()
        for plan in cached:
            label = plan.get_label
            paths.add(plan.path, label)
            for template in () if plan.policy is None else plan.policy.templates:
                self._declared.add(shape_of(template), template.text, label)
        shapes = Shapes(self._declared.texts)
        # Many mutations purge the same tags.
        matching: dict[str, tuple[str, ...]] = {}
        for plan in unsafe:
            label = plan.mutation_label
            for template in (each for found in plan.invalidations for each in found.templates):
                shape = shape_of(template)
                self._purged.add(shape, template.text, label)
                if shape not in matching:
                    matching[shape] = tuple(shapes.matching(shape))
                for known in matching[shape]:
                    self._link(label, self._declared.labels[known])
            for path in paths_named(plan.path, reach) if plan.purges_paths else ():
                self._link(label, dict.fromkeys(paths.matching(path)))

    def _link(self, mutation: str, pages: Labels) -> None:
        self._mutations.setdefault(mutation, {}).update(pages)
        for page in pages:
            self._pages.setdefault(page, {})[mutation] = None

    def of_page(self, label: str) -> tuple[str, ...]:
        """The mutations that purge a page."""
        return tuple(self._pages.get(label, ()))

    def of_mutation(self, label: str) -> tuple[str, ...]:
        """The pages that a mutation purges."""
        return tuple(self._mutations.get(label, ()))

    def lonely_tags(self, *, purged_too: bool, declared_too: bool) -> Iterator[TagHole]:
        """Tags of one side that match none of the other.

        Where other tags than the declared ones are `purged_too`, or `declared_too` while answering, only those are told
        that are like one of the other side.
        """
        for mine, others, more, declared in (
            (self._declared, self._purged, purged_too, True),
            (self._purged, self._declared, declared_too, False),
        ):
            for shape, near in lonely(mine.texts, others.texts, more=more):
                meant = None if near is None else others.texts[near]
                yield TagHole(mine.texts[shape], declared, tuple(mine.labels[shape]), meant)
