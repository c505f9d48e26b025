"""What is not valid in a request, said as often as the route alone would say it.

FastAPI lists the errors of a dependency each time that it comes to it, and it comes to a cover once more. It gives one
list for the whole tree, in the order in which it solves that. So the parameters of each dependency are validated again
here, after a request was refused, to know which entries are a cover's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.dependency_tree import Node, tree_of
from fastapi_cacheinval.routes.fastapi_private import Dependant, EffectiveRoute, solve_fields

__all__ = ["as_alone"]


def as_alone(route: EffectiveRoute, error: RequestValidationError, request: Request) -> None:
    """Take out of an error's list what covers have added to it.

    A dependency that stands in covers alone is listed once.
    """
    listed = error.errors()
    if not isinstance(listed, list):
        return
    root = tree_of(route.dependant, getattr(route.dependency_overrides_provider, "dependency_overrides", None) or {})
    try:
        kept = _kept([*_in_order(root, in_cover=False)], listed, request)
    except Exception:  # noqa: BLE001 - a validator of the author's, which has not raised before
        return
    listed[:] = kept


def _in_order(node: Node, *, in_cover: bool) -> Iterator[tuple[Node, bool]]:
    """The nodes as FastAPI validates their parameters, each with whether it is below a `cached()`."""
    for child in node.children:
        yield from _in_order(child, in_cover=in_cover or isinstance(child.call, Cached))
    yield node, in_cover


def _kept(nodes: Sequence[tuple[Node, bool]], listed: Sequence[Any], request: Request) -> Sequence[Any]:
    covers = {index: _errors(node.declares, request) for index, (node, in_cover) in enumerate(nodes) if in_cover}
    if not any(covers.values()):
        return listed
    # No cover takes a part of the content, so what is said of that stays.
    places = [place for place, each in enumerate(listed) if each["loc"][:1] != ("body",)]
    met = {node.identity for node, in_cover in nodes if not in_cover}
    found, added = list[Any](), set[int]()
    for index, (node, in_cover) in enumerate(nodes):
        errors = covers[index] if in_cover else _errors(node.declares, request)
        if in_cover and node.identity in met:
            added.update(places[len(found) : len(found) + len(errors)])
        met.add(node.identity)
        found += errors
    if [*map(_what, found)] != [_what(listed[place]) for place in places]:
        return listed
    return [each for place, each in enumerate(listed) if place not in added]


def _what(error: Any) -> tuple[Any, Any]:
    return error["type"], error["loc"]


def _errors(dependant: Dependant, request: Request) -> list[Any]:
    """What FastAPI lists of a node's own parameters, but for those of the content."""
    read = (
        (dependant.path_params, request.path_params),
        (dependant.query_params, request.query_params),
        (dependant.header_params, request.headers),
        (dependant.cookie_params, request.cookies),
    )
    return [error for fields, received in read for error in solve_fields(fields, received)[1]]
