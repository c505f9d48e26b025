"""What is asked of the same callables again and again while the routes of an app are looked at, worked out once.

Routes share their dependencies, and nothing of them changes during one look. What is remembered goes with the look: it
keeps no app alive, and cannot be out of date at the next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["looking", "once"]

_Asked = ParamSpec("_Asked")
_Given = TypeVar("_Given")

# By function and by the identity of what it was asked of, which is held for as long as its address stands for it.
_Memo = dict[tuple[Any, ...], tuple[object, Any]]
_memo: ContextVar[_Memo | None] = ContextVar("memo", default=None)


@contextmanager
def looking() -> Generator[None]:
    """One look at routes; what is asked within a look is asked once for each callable."""
    token = _memo.set({}) if _memo.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _memo.reset(token)


def once(function: Callable[_Asked, _Given]) -> Callable[_Asked, _Given]:
    """A function of one object, and of values after it, that is called once for each of them during a look."""

    @wraps(function)
    def asked(*given: _Asked.args, **named: _Asked.kwargs) -> _Given:
        memo = _memo.get()
        if memo is None or named:
            return function(*given, **named)
        thing, *values = given
        key = (function, id(thing), *values)
        found = memo.get(key)
        if found is None:
            found = memo[key] = (thing, function(*given, **named))
        return cast("_Given", found[1])

    return asked
