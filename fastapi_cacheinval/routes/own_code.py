"""Whether code is the framework's own, or ours: decided by where it was written, never by the names it carries.

`functools.wraps` copies `__module__`, `__qualname__` and even attributes onto a wrapper. It cannot copy the namespace
that a function was compiled in, so that is what is compared.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType, MethodType
from typing import Any

from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

__all__ = [
    "answers_by_the_error_alone",
    "beneath",
    "codes_of",
    "home_of",
    "is_decorated",
    "is_frameworks",
    "is_frameworks_class",
    "is_unpatched",
    "never_uses",
    "only_reads",
    "reads_names",
    "sent_without_the_request",
    "unbound",
]

_FRAMEWORK = frozenset({"fastapi", "starlette"})
# Their wrappers time and report what they wrap, and change no answer. What they wrap they hold as `old_...`.
_OBSERVERS = frozenset({"sentry_sdk"})
# A method that calls `super()` has this one; any other free variable holds something of its maker's.
_SUPER = frozenset({"__class__"})


def unbound(function: Any) -> Any:
    """The function of a method; anything else is given back as it is."""
    return function.__func__ if type(function) is MethodType else function


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of each function in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from codes_of(each)


def home_of(function: Any) -> str | None:
    """The module that a function or method was written in.

    None for what is not one (an object, a partial), for a function made by another one, which does what its maker
    was given, and for one whose module has been replaced.
    """
    bare: Any = beneath(unbound(function))
    if type(bare) is not FunctionType or not _SUPER.issuperset(bare.__code__.co_freevars):
        return None
    return _written_in(bare)


def _written_in(function: FunctionType) -> str | None:
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and vars(module) is function.__globals__ else None


def beneath(function: Any) -> Any:
    """What an observer's wrapper wraps, however often; anything else is given back as it is."""
    while type(function) is FunctionType and (_written_in(function) or "").partition(".")[0] in _OBSERVERS:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = [cell.cell_contents for name, cell in cells if name.startswith("old_")]
        if len(held) != 1:
            break
        function = held[0]
    return function


def is_frameworks(function: Any) -> bool:
    """Whether FastAPI or Starlette wrote a function or method."""
    return (home_of(function) or "").partition(".")[0] in _FRAMEWORK


def is_frameworks_class(kind: type) -> bool:
    """Whether a class is one of FastAPI's or Starlette's, as they wrote it."""
    module = sys.modules.get(kind.__module__)
    stands_there = module is not None and vars(module).get(kind.__name__) is kind
    return stands_there and kind.__module__.partition(".")[0] in _FRAMEWORK and is_unpatched(kind)


def is_unpatched(kind: type) -> bool:
    """Whether every method of a framework's class is the one that it was written with."""
    methods: dict[str, Any] = dict(vars(kind))
    for value in methods.values():
        method = value.__func__ if type(value) in (staticmethod, classmethod) else value
        if callable(method) and not inspect.isclass(method) and not is_frameworks(method):
            return False
    return True


# Each of these may read a local variable without naming it.
_READERS_OF_LOCALS = frozenset({"locals", "vars", "eval", "exec", "dir", "currentframe", "_getframe", "stack"})


def never_uses(function: Any, parameter: str) -> bool:
    """Whether the code of a function never touches a parameter of its own; False where that cannot be seen."""
    bare: Any = unbound(function)
    # What a decorator makes of a function may hand the parameter on, or use it itself.
    if type(bare) is not FunctionType or hasattr(bare, "__wrapped__"):
        return False
    code = bare.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    if parameter not in code.co_varnames[:count] or not _READERS_OF_LOCALS.isdisjoint(code.co_names):
        return False
    # Later versions of Python name two variables in one instruction.
    named: list[Any] = [each.argval for each in dis.get_instructions(code)]
    return parameter not in code.co_cellvars and not any(
        parameter in (each if isinstance(each, tuple) else (each,)) for each in named
    )


def only_reads(function: Any, parameter: str, names: frozenset[str]) -> bool:
    """Whether the code of a function does nothing with a parameter but read these attributes of it.

    False where that cannot be seen: what is handed on, kept, or taken by a decorator may be read elsewhere.
    """
    bare: Any = unbound(function)
    if type(bare) is not FunctionType or hasattr(bare, "__wrapped__"):
        return False
    code = bare.__code__
    if parameter in code.co_cellvars or not _READERS_OF_LOCALS.isdisjoint(code.co_names):
        return False
    read = False
    for each in reversed([*dis.get_instructions(code)]):
        value: Any = each.argval
        named = value if isinstance(value, tuple) else (value,)  # pyright: ignore[reportUnknownVariableType]
        # Of two variables that one instruction loads the second is the one that the next instruction takes.
        loads = "LOAD_FAST" in each.opname and parameter not in named[:-1]
        if parameter in named and not (loads and read):
            return False
        read = each.opname in ("LOAD_ATTR", "LOAD_METHOD") and value in names
    return True


def is_decorated(function: Any) -> bool:
    """Whether a function is a decorator's, which may do anything with what it hands on."""
    return hasattr(unbound(function), "__wrapped__")


def reads_names(function: Any, names: frozenset[str]) -> bool:
    """Whether the code of a function names one of these attributes or globals; True where that cannot be seen."""
    bare: Any = inspect.unwrap(unbound(function))
    return type(bare) is not FunctionType or not names.isdisjoint(bare.__code__.co_names)


@lru_cache(maxsize=256)
def _is_frameworks(function: Any) -> bool:
    """The same, asked for each response that is stored."""
    return is_frameworks(function)


def sent_without_the_request(response: object) -> bool:
    """Whether a response object is sent by the framework's own method; one of the app's is given the scope."""
    return response is None or _is_frameworks(type(response).__call__)


# Their handlers are given the request, and look at nothing but the error.
_STOCK = frozenset({"fastapi.exception_handlers", "starlette.middleware.exceptions"})


def answers_by_the_error_alone(scope: Scope, error: BaseException) -> bool:
    """Whether the framework's own handler answers for an error; one of the app's may answer each caller differently."""
    handlers: Any = scope.get("starlette.exception_handlers")
    if handlers is None:
        return False
    by_class, by_status = handlers
    found = by_status.get(error.status_code) if isinstance(error, StarletteHTTPException) else None
    for kind in type(error).__mro__:
        found = found or by_class.get(kind)
    return home_of(found) in _STOCK
