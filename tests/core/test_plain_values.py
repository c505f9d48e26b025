"""A subclass of `str`, `int`, `bytes`, `tuple` or `UUID` is a partition of its own, if it keeps no more than it inherits."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Self
from uuid import UUID

import pytest

from fastapi_cacheinval.core.keys import PartitionTypeError, partition_digest
from fastapi_cacheinval.core.plain_values import exactly

SECRET = b"secret"


class Admin(NamedTuple):
    id: int


class Guest(NamedTuple):
    id: int


class Name(str):
    __slots__ = ()


class Number(int):
    pass


class Raw(bytes):
    pass


class Pair(tuple[int, ...]):
    __slots__ = ()


class Id(UUID):
    pass


class User(str):  # noqa: SLOT000 - it keeps more
    role: str

    def __new__(cls, name: str, role: str) -> Self:
        made = super().__new__(cls, name)
        made.role = role
        return made


class Slotted(str):
    __slots__ = ("role",)


class Counted(int):
    pass


class Sub(User):
    pass


class Lower(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Counting(str):  # noqa: SLOT000 - it keeps more
    @cached_property
    def length(self) -> int:
        return len(self)


def digest(value: object) -> bytes:
    return partition_digest((value,), SECRET)


SAME: list[tuple[Any, ...]] = [
    (Admin(7), Guest(7), (7,), Pair((7,))),
    ("a", Name("a")),
    (7, Number(7), Counted(7)),
    (b"a", Raw(b"a")),
    (UUID(int=7), Id(int=7)),
    (("a", 1), (Name("a"), 1), ("a", Number(1))),
]


@pytest.mark.parametrize("values", SAME, ids=repr)
def test_equal_values_of_different_classes_are_different_partitions(values: tuple[Any, ...]) -> None:
    """The handler may ask for the class, as `type(who) is Admin` does."""
    assert len({digest(value) for value in values}) == len(values)
    assert len(set(values)) == 1


@pytest.mark.parametrize("value", [Admin(7), Name("a"), Number(7), Raw(b"a"), Pair((7,)), Id(int=7)])
def test_a_value_is_what_it_inherits(value: Any) -> None:
    """It is equal to that, and exactly of its type."""
    plain = exactly(value)
    assert plain == value
    assert type(plain) in (str, int, bytes, tuple, UUID)


def slotted(role: str) -> Slotted:
    value = Slotted("alice")
    value.role = role  # type: ignore[attr-defined]
    return value


def counted() -> Counted:
    value = Counted(7)
    value.role = "admin"  # type: ignore[attr-defined]
    return value


def touched() -> Counting:
    value = Counting("alice")
    assert value.length == 5
    return value


def local() -> Any:
    class Local(str):
        __slots__ = ()

    return Local("alice")


def renamed() -> Any:
    """A class under the name of another."""
    return type("Name", (str,), {"__module__": __name__, "__qualname__": "Name", "role": "admin"})("alice")


REFUSED: dict[str, Any] = {
    "an attribute": User("alice", "admin"),
    "an inherited attribute": Sub("alice", "admin"),
    "a slot": slotted("admin"),
    "an attribute from outside": counted(),
    "a cached property": touched(),
    "a local class": local(),
    "a class with another's name": renamed(),
    "equal by its own rule": Lower("Alice"),
    "in a tuple": (1, User("alice", "admin")),
    "in a named tuple": Admin(User("alice", "admin")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_value_that_may_keep_more_is_refused(kind: str) -> None:
    """Two of them may be equal as texts, and yet be two callers."""
    with pytest.raises(PartitionTypeError, match="Return the id"):
        digest(REFUSED[kind])


def test_a_slot_that_is_empty_keeps_nothing() -> None:
    """Nothing tells two such values apart."""
    assert digest(Slotted("alice")) == digest(Slotted("alice"))
