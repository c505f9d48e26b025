"""Values that never change: what their copies are, and a mapping that can be copied and pickled."""

from __future__ import annotations

from typing import Any, NoReturn, Self, TypeVar

__all__ = ["FrozenMapping", "Unchanging"]

_K = TypeVar("_K")
_V = TypeVar("_V")


class Unchanging:
    """A value whose copies are itself, as those of a function are.

    Libraries copy routes with all that they declare. The dependencies that a policy names are compared by identity.
    """

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self


class FrozenMapping(dict[_K, _V]):
    """A dict that raises TypeError when it is written to. In place of `MappingProxyType`, which nothing can copy."""

    __slots__ = ()

    def _refuse(self, *_given: Any, **_named: Any) -> NoReturn:
        raise TypeError("this mapping cannot be changed")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType,reportIncompatibleMethodOverride]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)
