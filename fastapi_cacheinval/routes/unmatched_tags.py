"""Tags that a mutation purges and no cached route declares: `product:` here, `products:` there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from fastapi_cacheinval.core.tags import TagTemplate
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["unmatched_tags"]

# How much alike two tags are that are taken for one misspelt: product:{} and products:{} are.
_ALIKE = 0.75


def _shape(template: TagTemplate) -> str:
    return "".join(literal + ("{}" if name is not None else "") for literal, name in template.parts)


def _may_be(one: str, other: str) -> bool:
    """Whether two templates may give the same tag, whatever stands in their braces."""
    pattern, text = (".*".join(map(re.escape, one.split("{}"))), other.replace("{}", "x"))
    return re.fullmatch(pattern, text) is not None


def unmatched_tags(plans: Sequence[RoutePlan]) -> Iterator[str]:
    """A warning for each tag that nothing carries, with the one that may have been meant.

    Nothing is said of an app that caches nothing, and of tags unlike all others where handlers add some by `CacheTags`:
    no template says which.
    """
    cached = [plan for plan in plans if plan.policy is not None]
    if not cached:
        return
    declared = {_shape(each): each.text for plan in cached if plan.policy for each in plan.policy.templates}
    adds = any(plan.adds_tags for plan in cached)
    for plan in plans:
        route = f"{'/'.join(sorted(plan.methods))} {plan.path}"
        for template in dict.fromkeys(each for found in plan.invalidations for each in found.templates):
            shape = _shape(template)
            if any(_may_be(shape, other) or _may_be(other, shape) for other in declared):
                continue
            near = get_close_matches(shape, declared, 1, _ALIKE)
            if near:
                yield (
                    f"{route} purges {template.text!r}, which no cached route declares. Write "
                    f"{_spelled_as(declared[near[0]], template)!r} in one of the two places if {declared[near[0]]!r} "
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
