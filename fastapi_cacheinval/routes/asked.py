"""What a route's plan says of a request that is not made."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request

from fastapi_cacheinval.routes.path_shapes import IN_PATH
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["path_params_of", "tags_of"]


def path_params_of(plan: RoutePlan, path: str) -> dict[str, str]:
    """The parameters in a path that the route answers, as far as its template says; `path` is without the root path."""
    # What is between the parameters, and their names, by turns.
    parts = IN_PATH.split(plan.path)
    literal, names = [*map(re.escape, parts[::2])], parts[1::2]
    # A parameter with slashes in it has a convertor, which the template does not show.
    found = re.fullmatch("([^/]+)".join(literal), path) or re.fullmatch("(.+?)".join(literal), path, re.DOTALL)
    return {} if found is None else dict(zip(names, found.groups(), strict=True))


def tags_of(plan: RoutePlan, request: Request) -> tuple[str, ...] | None:
    """What the route's templates give for a request; None where a parameter is not valid."""
    tags: dict[str, None] = {}
    for template in () if plan.policy is None else plan.policy.templates:
        try:
            bound: Mapping[str, object] = {name: plan.bindings[name].value(request) for name in template.names}
            tag = template.render(bound)
        except Exception:  # noqa: BLE001  # a validator of the author's may raise anything
            return None
        if tag is not None:
            tags[tag] = None
    return tuple(tags)
