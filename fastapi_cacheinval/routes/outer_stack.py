"""What a request passes before it comes to a middleware, seen from the server."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Router

from fastapi_cacheinval.routes.layer_kinds import is_transparent, kind_of, name_of, replaced
from fastapi_cacheinval.routes.place import Watched

__all__ = ["OuterStack", "outer_stack_of"]


@dataclass(frozen=True, slots=True)
class OuterStack:
    """What a request passes before it comes to a layer.

    `found` is the layer, None where the way to it cannot be seen. `layers` are those before it, outermost first,
    `strange` names those of them that may do more than hand the request on. `root_path` is what an application on the
    way insists on. `watched` is what would make the rest untrue.
    """

    found: Any
    layers: tuple[Any, ...]
    strange: tuple[str, ...]
    root_path: str
    watched: Watched


def outer_stack_of(app: Any, wanted: type, known: Collection[type] = ()) -> OuterStack:
    """Follow `.app`, and the middleware stacks of applications, from an ASGI callable to a layer of the `wanted` class.

    `known` are further classes whose instances the caller deals with itself.
    """
    watched, passed, strange, root_path = Watched(), list[Any](), list[str](), ""
    step, seen = app, set[int]()
    while step is not None and id(step) not in seen and not isinstance(step, Router):
        seen.add(id(step))
        if isinstance(step, wanted):
            return OuterStack(step, tuple(passed), tuple(strange), root_path, watched)
        passed.append(step)
        if isinstance(step, Starlette):
            strange += replaced(step, (FastAPI, Starlette), ("__call__",))
            root_path = str(getattr(step, "root_path", "") or root_path)
            watched.attributes(step, "middleware_stack", "root_path")
            step = step.middleware_stack
            continue
        kind = kind_of(step)
        if kind not in known and not is_transparent(kind):
            strange.append(name_of(kind))
        watched.attributes(step, "app")
        step = getattr(step, "app", None)
    return OuterStack(None, tuple(passed), tuple(strange), root_path, watched)
