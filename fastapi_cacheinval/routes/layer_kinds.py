"""The classes of what stands between our middleware and the router: their names, and which of them are harmless."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any

from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fastapi_cacheinval.routes.own_code import is_frameworks, is_unpatched

__all__ = [
    "WRITING",
    "is_harmless",
    "is_transparent",
    "kind_of",
    "lets_gets_through",
    "name_of",
    "passes_through",
    "replaced",
]

# Not in every version that we run on.
_SOMETIMES = (
    ("starlette.middleware.body_limit", "RequestBodyLimitMiddleware"),
    ("fastapi._body_limit", "AppBodyLimitMiddleware"),
    ("fastapi._body_limit", "_BodyLimitExceptionMiddleware"),
    ("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware"),
)


def _optional() -> Iterator[Any]:
    for module, name in _SOMETIMES:
        try:
            yield getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue


# Of the harmless ones below, those that write into answers.
WRITING: frozenset[Any] = frozenset({CORSMiddleware, GZipMiddleware})

_TRANSPARENT: frozenset[Any] = frozenset({ServerErrorMiddleware, *_optional()})

# These let every GET without content through.
_ADMITTING: frozenset[Any] = _TRANSPARENT | {
    AsyncExitStackMiddleware,
    CORSMiddleware,
    ExceptionMiddleware,
    GZipMiddleware,
}

# None of these decides who may see a response, or changes it by more than its own request headers say.
_HARMLESS: frozenset[Any] = _ADMITTING | {HTTPSRedirectMiddleware, TrustedHostMiddleware}


# Classes of this package, which stand above this module and tell it of themselves.
_ours: set[Any] = set()


def passes_through(kind: type) -> None:
    """Count a middleware class of this package as harmless: the second of its kind in a stack does nothing."""
    _ours.add(kind)


def is_harmless(kind: Any) -> bool:
    """Whether a hit may skip it: it does not decide who may see a response, nor change one for a reason of its own."""
    # The very class: a subclass, or a function under its name, may do anything.
    if not isinstance(kind, type):
        return False
    return kind in _ours or (kind in _HARMLESS and is_unpatched(kind))


def is_transparent(kind: Any) -> bool:
    """Whether it hands on a GET without a body as it came, and its answer as it is."""
    return kind in _TRANSPARENT and is_unpatched(kind)


def lets_gets_through(kind: Any) -> bool:
    """Whether it lets every GET without content through; what it would write into an answer is not written then."""
    return kind in _ADMITTING and is_unpatched(kind)


def kind_of(step: object) -> Any:
    """What stands for an ASGI callable: its class, the function itself, or words where methods of it are replaced."""
    if isinstance(step, FunctionType | MethodType):
        return step
    known: dict[str, Any] = getattr(step, "__dict__", {})
    own = [name for name in known if isinstance(getattr(type(step), name, None), FunctionType)]
    return f"{name_of(step)} with its own {'(), '.join(own)}()" if own else type(step)


def name_of(thing: Any) -> str:
    """Its name for people and for keys, the same in every process."""
    if isinstance(thing, str):
        return thing
    function: Any = thing.__func__ if isinstance(thing, MethodType) else thing
    if isinstance(function, FunctionType):
        # Where it was written: what `functools.wraps` made has the name of what it wraps.
        return f"{function.__globals__.get('__name__')}.{function.__code__.co_qualname}"
    kind: Any = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def replaced(thing: object, bases: tuple[type, ...], methods: tuple[str, ...]) -> Iterator[str]:
    """The methods that a subclass, or a patch of the instance or of its class, replaces."""
    kind = type(thing)
    for method in methods:
        written = [getattr(base, method, None) for base in bases]
        stock = [each for each in written if each is None or is_frameworks(each)]
        if method in vars(thing) or getattr(kind, method, None) not in stock:
            yield f"{name_of(thing)} with its own {method}()"
