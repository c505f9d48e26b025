"""The parameters that decorators fill: FastAPI does not know them, and no signature that it reads shows them.

Such a decorator takes the value from a context variable or a container, which may hold who is calling.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from fastapi_cacheinval.routes.dependency_tree import Node

__all__ = ["filled_by_decorators"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# What wireup's wrapper says of a parameter that it fills once for all, from a singleton or the configuration.
_WIREUPS_FOR_ALL = re.compile(
    r"kwargs\['(\w+)'\] = (?:await )?(?:_wireup_singleton_factories\[|_wireup_config_val_|scope\.config\.)"
)
# More layers than anybody puts around a function; a cycle has no end.
_MOST_LAYERS = 64


def filled_by_decorators(node: Node) -> tuple[str, ...]:
    """The parameters without a default that what a node calls takes from elsewhere than from FastAPI.

    A layer that is handed something under a name that it does not hand on may make it from that: a parameter that
    FastAPI fills under another name is none of these.
    """
    call = node.call
    if type(call) is FunctionType and not vars(call):
        # Nearly all are plain functions, for which FastAPI fills all there is.
        return ()
    known, fillable = _solved(node)
    for_all = {*_WIREUPS_FOR_ALL.findall(getattr(call, "__wireup_generated_code__", ""))}
    for declared, required in _layers(call):
        missing = [name for name in required if name not in known and name not in for_all]
        others = [name for name in known if name in fillable and name not in declared]
        if len(missing) > len(others):
            return tuple(missing)
        known = frozenset(declared)
    return ()


def _solved(node: Node) -> tuple[frozenset[str], frozenset[str]]:
    """The names under which FastAPI hands a node something, and those of them that are made of what the route says."""
    of = node.declares
    fields = (*of.path_params, *of.query_params, *of.header_params, *of.cookie_params, *of.body_params)
    # Of wireup's dependencies FastAPI hands on the mark alone, in whose place its wrapper puts the value.
    solved = [each for each in of.dependencies if not getattr(each.call, "__is_wireup_depends__", False)]
    made = {each.name for each in fields} | {each.name for each in solved if each.name is not None}
    handed = {
        of.request_param_name,
        of.http_connection_param_name,
        of.websocket_param_name,
        of.response_param_name,
        of.background_tasks_param_name,
        of.security_scopes_param_name,
    }
    return frozenset({*made, *filter(None, handed)}), frozenset(made)


def _layers(call: Any) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """What each layer beneath the first says that it takes, and what of that it must be given; the inmost comes last.

    What a layer says may be what its decorator has it say; the inmost is asked for its code.
    """
    bound, named = 0, frozenset[str]()
    for _ in range(_MOST_LAYERS):
        # Kept as Any beside the narrowing.
        wrapper: Any = call
        below: Any
        if isinstance(call, partial):
            below = call.func  # pyright: ignore[reportUnknownMemberType]
            bound, named = bound + len(call.args), named | {*call.keywords}
        elif type(call) is MethodType:
            below, bound = call.__func__, bound + 1
        elif inspect.isclass(call):
            # FastAPI makes it by what it says itself.
            return
        else:
            below = getattr(wrapper, "__wrapped__", None)
            if below is None and not inspect.isroutine(call) and type(type(call).__call__) is FunctionType:
                below, bound = type(call).__call__, bound + 1
        if below is None:
            yield _taken(_parameters(call), bound, named)
            return
        if getattr(wrapper, "__wrapped__", None) is below and getattr(below, "__wrapped__", None) is not None:
            yield _taken(_said(below), bound, named)
        call = below


def _said(call: Any) -> Sequence[inspect.Parameter]:
    try:
        return [*inspect.signature(call).parameters.values()]
    except (TypeError, ValueError):
        return []


def _parameters(call: Any) -> Sequence[inspect.Parameter]:
    """What a function itself takes, whatever has been written over its signature."""
    if type(call) is not FunctionType:
        return _said(call)
    bare = FunctionType(call.__code__, {}, call.__name__, call.__defaults__, call.__closure__)
    bare.__kwdefaults__ = call.__kwdefaults__
    return _said(bare)


def _taken(
    parameters: Sequence[inspect.Parameter], bound: int, named: frozenset[str]
) -> tuple[Sequence[str], Sequence[str]]:
    free = [each for each in parameters if each.kind not in _MANY and each.name not in named]
    positional = [each.name for each in free if each.kind in _POSITIONAL]
    # A class-based view is handed its object by whatever makes that.
    given = {*positional[:bound], *(name for name in positional[:1] if name in ("self", "cls"))}
    required = [each.name for each in free if each.default is each.empty and each.name not in given]
    return [each.name for each in parameters], required
