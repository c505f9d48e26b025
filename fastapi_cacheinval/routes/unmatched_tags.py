"""Tags that a mutation purges and no cached route declares: `product:` here, `products:` there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi_cacheinval.core.tags import TagTemplate
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.tag_shapes import Nearest, Shapes, shape_of

__all__ = ["unmatched_tags"]


def unmatched_tags(plans: Sequence[RoutePlan]) -> Iterator[str]:
    """A warning for each tag that nothing carries, with the one that may have been meant.

    Nothing is said of an app that caches nothing, and of tags unlike all others where handlers add some by `CacheTags`:
    no template says which.
    """
    cached = [plan for plan in plans if plan.policy is not None]
    if not cached:
        return
    declared = {shape_of(each): each.text for plan in cached if plan.policy for each in plan.policy.templates}
    shapes, nearest = Shapes(declared), Nearest(declared)
    adds = any(plan.adds_tags for plan in cached)
    for plan in plans:
        route = f"{'/'.join(sorted(plan.methods))} {plan.path}"
        for template in dict.fromkeys(each for found in plan.invalidations for each in found.templates):
            shape = shape_of(template)
            if any(True for _ in shapes.matching(shape)):
                continue
            near = nearest.to(shape)
            if near is not None:
                yield (
                    f"{route} purges {template.text!r}, which no cached route declares. Write "
                    f"{_spelled_as(declared[near], template)!r} in one of the two places if {declared[near]!r} "
                    "is meant."
                )
            elif not adds:
                yield (
                    f"{route} purges {template.text!r}, which no cached route declares. Declare it where it is read: "
                    f"cached(..., tags=[{template.text!r}])."
                )


def _spelled_as(declared: str, template: TagTemplate) -> str:
    """The declared tag with the names of the route that purges, where they are as many."""
    names = list(template.names)
    found = TagTemplate.parse(declared)
    if len(found.names) != len(names):
        return declared
    return "".join(literal + (f"{{{names.pop(0)}}}" if name is not None else "") for literal, name in found.parts)
