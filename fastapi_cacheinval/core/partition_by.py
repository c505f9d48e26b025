"""`PartitionBy`: a dependency whose value is no key itself, with the function that makes one of it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, overload

from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["PartitionBy", "UnusableKey", "unaliased"]

_T = TypeVar("_T")


def unaliased(dependency: Any) -> Any:
    """What an alias such as `CurrentUser = Annotated[User, Depends(get_user)]` stands for; anything else as it is.

    The last `Depends` counts, as it does for FastAPI, and an empty one stands for the type. Raises
    `ConfigurationError` for an `Annotated` type without any: nothing says what is to be run.
    """
    while type(dependency).__name__ == "TypeAliasType":
        dependency = dependency.__value__
    if get_origin(dependency) is not Annotated:
        return dependency
    kind, *marks = get_args(dependency)
    marks = [mark for mark in marks if hasattr(mark, "dependency")]
    if not marks:
        raise ConfigurationError(f"{dependency!r} names no dependency: name the function, or add Depends(...) to it.")
    return kind if marks[-1].dependency is None else marks[-1]


@dataclass(frozen=True, slots=True, init=False)
class PartitionBy:
    """A partition by a part of what a dependency gives: `PartitionBy(current_user, key=lambda user: user.id)`.

    - `dependency`: a callable, `Depends` or `Security` of one, or an `Annotated` alias that has one of these.
      It is the cover: FastAPI runs it before the lookup, on every request.
    - `key`: a function of its value. It returns what keeps responses apart: a `str`, `bytes`, `int`, `UUID`,
      `Enum`, `None`, or a tuple of these. It is called on every request, in the event loop.

    It stands wherever `partition_by` takes a dependency, alone or in a tuple. Raises `ConfigurationError` for a
    dependency or a key that cannot be called, and for an async key. The app answers a request whose `key` raises or
    returns another type, uncached: `Cache-Status` says `detail=partition`, and the log names the route once.
    """

    dependency: Any
    key: Callable[[Any], object]

    # The value is what FastAPI hands on: what is awaited or yielded.
    @overload
    def __init__(self, dependency: Callable[..., Awaitable[_T]], key: Callable[[_T], object]) -> None: ...
    @overload
    def __init__(self, dependency: Callable[..., AsyncIterator[_T]], key: Callable[[_T], object]) -> None: ...
    @overload
    def __init__(self, dependency: Callable[..., Iterator[_T]], key: Callable[[_T], object]) -> None: ...
    @overload
    def __init__(self, dependency: Callable[..., _T], key: Callable[[_T], object]) -> None: ...
    @overload
    def __init__(self, dependency: Any, key: Callable[[Any], object]) -> None: ...
    def __init__(self, dependency: Any, key: Callable[[Any], object]) -> None:
        dependency = unaliased(dependency)
        if isinstance(dependency, PartitionBy) or not callable(getattr(dependency, "dependency", dependency)):
            raise ConfigurationError(f"PartitionBy takes a dependency (a callable or Depends), not {dependency!r}.")
        if not callable(key):
            raise ConfigurationError(f"PartitionBy's key is a function of the dependency's value, not {key!r}.")
        faces = (key, getattr(key, "__call__", None))  # noqa: B004 - an object's own, to look at
        if any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in faces):
            raise ConfigurationError(
                "PartitionBy's key is a plain function, not an async one: do what has to be awaited in the dependency."
            )
        object.__setattr__(self, "dependency", dependency)
        object.__setattr__(self, "key", key)


class UnusableKey:
    """Stands for what no cache key can hold, as the value of a `key` that raised: `error` is what was raised."""

    __slots__ = ("error", "why")

    def __init__(self, error: Exception | None, why: str = "the key of its PartitionBy raised an error") -> None:
        self.error = error
        self.why = why
