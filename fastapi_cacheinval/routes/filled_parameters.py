"""The parameters that decorators fill: FastAPI does not know them, and no signature that it reads shows them.

Such a decorator takes the value from a context variable or a container, which may hold who is calling.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, cast

from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.held_objects import attribute_of
from fastapi_cacheinval.routes.once import once

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
    """The parameters that what a node calls takes from elsewhere than from FastAPI.

    A layer that is handed something under a name that it does not hand on may make it from that: a parameter that
    FastAPI fills under another name is none of these.
    """
    call = node.call
    if type(call) is FunctionType and not vars(call) and not _is_renamed(call):
        # Nearly all are plain functions, for which FastAPI fills all there is.
        return ()
    known, fillable = _solved(node)
    for_all = {*_WIREUPS_FOR_ALL.findall(getattr(call, "__wireup_generated_code__", ""))}
    for layer in _layers_of(call):
        shown = known if layer.shown is None else frozenset(layer.shown)
        missing = [name for name in layer.takes if name not in shown and name not in for_all]
        # What takes anything is handed what is shown.
        missing += [] if shown else layer.anything
        others = [name for name in shown if name in fillable and name not in layer.declared]
        if len(missing) > len(others):
            return tuple(missing)
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


class _Layer(NamedTuple):
    """What a layer says that it takes, and what the layer above says; None where that is what FastAPI knows.

    What a layer says may be what its decorator has it say; the inmost is asked for its code. `takes` are the parameters
    that it may be handed, and `anything` those that stand for any. What has no layer above is handed nothing for what
    has a default.
    """

    shown: Sequence[str] | None
    declared: Sequence[str]
    takes: Sequence[str]
    anything: Sequence[str]


@dataclass(slots=True)
class _Given:
    """What is given already on the way down, by place and by name, and what the last layer showed."""

    bound: int = 0
    named: frozenset[str] = frozenset()
    shown: Sequence[str] | None = None
    wrapped: bool = False

    def layer(self, parameters: Sequence[inspect.Parameter]) -> _Layer:
        free = [each for each in parameters if each.name not in self.named]
        positional = [each.name for each in free if each.kind in _POSITIONAL]
        # A class-based view is handed its object by whatever makes that.
        given = {*positional[: self.bound], *(name for name in positional[:1] if name in ("self", "cls"))}
        takes = [
            each.name
            for each in free
            if each.kind not in _MANY and each.name not in given and (self.wrapped or each.default is each.empty)
        ]
        fed = {inspect.Parameter.VAR_POSITIONAL: self.bound, inspect.Parameter.VAR_KEYWORD: self.named}
        anything = [each.name for each in free if each.kind in _MANY and self.wrapped and not fed[each.kind]]
        shown, self.shown = self.shown, [each.name for each in parameters]
        return _Layer(shown, self.shown, takes, anything)


@once
def _layers_of(call: Any) -> tuple[_Layer, ...]:
    return (*_layers(call),)


def _layers(call: Any, given: _Given | None = None) -> Iterator[_Layer]:
    """The layers beneath the first; the inmost comes last."""
    given = given or _Given()
    for _ in range(_MOST_LAYERS):
        # Kept as Any beside the narrowing.
        layer: Any = call
        below: Any
        wraps = False
        if isinstance(call, partial):
            below = call.func  # pyright: ignore[reportUnknownMemberType]
            given.bound, given.named = given.bound + len(call.args), given.named | {*call.keywords}
        elif type(call) is MethodType:
            below, given.bound = call.__func__, given.bound + 1
        elif inspect.isclass(call):
            if given.wrapped:
                yield given.layer(_said(call))
            # FastAPI knows what a class says; the methods that make its objects may be wrapped themselves.
            for method in filter(_wrapped_by, (type(call).__call__, call.__new__, call.__init__)):
                yield from _layers(method, replace(given, bound=given.bound + 1))
            return
        else:
            below = _wrapped_by(layer)
            wraps = below is not None
            if below is None and not inspect.isroutine(call) and type(type(call).__call__) is FunctionType:
                below, given.bound = type(call).__call__, given.bound + 1
        if below is None:
            yield given.layer(_parameters(call))
            return
        given.wrapped = given.wrapped or wraps
        if wraps and _wrapped_by(below) is not None:
            yield given.layer(_said(below))
        call = below


def _wrapped_by(layer: Any) -> Any:
    """What a layer wraps: it says so, or has the name of something that it holds on to; None for anything else."""
    below = getattr(layer, "__wrapped__", None)
    if below is not None or not _is_renamed(layer):
        return below
    cells = getattr(layer, "__closure__", None) or ()
    own: dict[str, Any] = vars(cast("object", layer))
    held: list[Any] = [*(attribute_of(cell, "cell_contents") for cell in cells), *own.values()]
    # A factory may name what it makes after a class.
    able = [each for each in held if callable(each) and not inspect.isclass(each) and each is not layer]
    return next((each for each in able if attribute_of(each, "__name__") == layer.__name__), None)


def _is_renamed(layer: Any) -> bool:
    """Whether a function or an object has been given the name of something else."""
    if type(layer) is FunctionType:
        return layer.__name__ != layer.__code__.co_name
    return not inspect.isroutine(layer) and not inspect.isclass(layer) and "__name__" in getattr(layer, "__dict__", ())


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
