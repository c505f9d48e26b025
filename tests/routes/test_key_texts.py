"""The key that a refusal proposes tells values apart by all that they have, or says what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, NewType, NotRequired, TypedDict
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, RootModel, SecretStr
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship, synonym
from starlette.authentication import BaseUser

from fastapi_cacheinval.core.keys import partition_digest
from fastapi_cacheinval.routes.key_texts import key_text


class Role(Enum):
    """What a caller may do."""

    USER = "user"
    ADMIN = "admin"


class Model(BaseModel):
    """What most dependencies give."""

    id: int
    tenant: str
    role: Role = Role.USER
    scopes: list[str] = []
    since: datetime | None = None
    secret: SecretStr = SecretStr("")
    limit: Decimal = Decimal(1)
    kind: ClassVar[str] = "model"

    @property
    def shown(self) -> str:
        """Made of the others."""
        return f"{self.tenant}/{self.id}"


@dataclass
class Data:
    """The identifying field is not the first."""

    tenant_id: int
    id: int
    scopes: str = ""


class Plain:
    """Types are not known."""

    def __init__(self, number: int, tenant: str) -> None:
        self.id = number
        self.tenant = tenant


class Claims(TypedDict):
    """A decoded token."""

    sub: str
    tenant: str
    act: NotRequired[str]


class Row(NamedTuple):
    """A key as it is, but for its list."""

    id: int
    roles: list[str]


class Nested(BaseModel):
    """With a part that is no key."""

    id: int
    role: str
    home: Model | None = None


class Base(DeclarativeBase):
    """Of the mapped class."""


class Account(Base):
    """A row of a database."""

    __tablename__ = "callers"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]


Many = make_dataclass("Many", [(f"part_{number}", str, field(default="")) for number in range(20)] + [("id", int, 0)])

_MODEL: dict[str, Any] = {"id": 7, "tenant": "acme"}

# A type, values of it that differ in one part each, by that part's name.
KINDS: dict[str, tuple[Any, dict[str, tuple[Any, Any]]]] = {
    "a model": (
        Model,
        {
            name: (Model(**_MODEL), Model(**_MODEL | {name: value}))
            for name, value in {
                "id": 8,
                "tenant": "bolt",
                "role": Role.ADMIN,
                "scopes": ["all"],
                "since": datetime(2026, 1, 1, tzinfo=UTC),
                "secret": SecretStr("x"),
                "limit": Decimal(2),
            }.items()
        },
    ),
    "a model or None": (
        Model | None,
        {"id": (None, Model(**_MODEL)), "tenant": (Model(id=7, tenant="bolt"), Model(**_MODEL))},
    ),
    "a dataclass": (
        Data,
        {
            "tenant_id": (Data(1, 7), Data(2, 7)),
            "id": (Data(1, 7), Data(1, 8)),
            "scopes": (Data(1, 7), Data(1, 7, "all")),
        },
    ),
    "a class": (Plain, {"id": (Plain(7, "acme"), Plain(8, "acme")), "tenant": (Plain(7, "acme"), Plain(7, "bolt"))}),
    "a typed mapping": (
        Claims,
        {
            "sub": (Claims(sub="7", tenant="acme"), Claims(sub="8", tenant="acme")),
            "tenant": (Claims(sub="7", tenant="acme"), Claims(sub="7", tenant="bolt")),
            "act": (Claims(sub="7", tenant="acme"), Claims(sub="7", tenant="acme", act="8")),
        },
    ),
    "nested": (
        Nested,
        {
            "role": (Nested(id=7, role="user"), Nested(id=7, role="admin")),
            "home": (Nested(id=7, role="user"), Nested(id=7, role="user", home=Model(**_MODEL))),
        },
    ),
    "a mapped class": (
        Account,
        {
            "id": (Account(id=7, tenant="acme"), Account(id=8, tenant="acme")),
            "tenant": (Account(id=7, tenant="acme"), Account(id=7, tenant="bolt")),
        },
    ),
    "many parts": (Many, {"id": (Many(id=7), Many(id=8)), "part_3": (Many(id=7), Many(id=7, part_3="x"))}),
    "one of two": (Data | Plain, {"id": (Data(1, 7), Data(1, 8)), "tenant": (Plain(7, "acme"), Plain(7, "bolt"))}),
}

CASES = [(name, part) for name, (_, parts) in KINDS.items() for part in parts]


@pytest.mark.parametrize(("name", "part"), CASES, ids=[f"{name}: {part}" for name, part in CASES])
def test_values_that_differ_in_a_part_have_two_keys_or_the_part_is_named(name: str, part: str) -> None:
    """Nobody who writes the line down shares a page by a part that the message was silent about."""
    kind, parts = KINDS[name]
    made = key_text(kind)
    key = eval(made.text)
    one, two = (partition_digest((key(value),), b"secret") for value in parts[part])
    assert one != two or part in made.told.replace(",", " ").replace(".", " ").split() or "…" in made.told


def test_the_line_is_as_short_as_its_type_allows() -> None:
    """All parts in their order, those of the class and properties left out; one part stands alone."""
    assert key_text(Data).text == "lambda value: (value.tenant_id, value.id, value.scopes)"
    assert key_text(Data).told == ""
    assert key_text(Model).told == ""
    assert "shown" not in key_text(Model).text
    assert key_text(make_dataclass("One", [("it", str)])).text == "lambda value: value.it"
    assert key_text(Claims).text == "lambda value: (value['sub'], value['tenant'], value.get('act'))"


def test_what_is_left_out_is_said() -> None:
    """In words that name the type and its parts."""
    assert key_text(Nested).told == "The key has id, role of Nested: add what else a page may depend on, of home."
    assert key_text(Plain) == ("lambda value: (value.id, value.tenant)", "")
    assert key_text(Many).told.startswith(
        "The key has id of Many: add what else a page may depend on, of part_0, part_1,"
    )
    assert key_text(Any).told == "In place of id write what tells callers apart."
    assert key_text(UUID).text == "str"


class Computed:
    """Two parts are declared, and others are made of something else."""

    id: int
    role: str

    def __init__(self, tenant: str) -> None:
        self._hidden = tenant

    @property
    def tenant(self) -> str:
        """Made of what is no part."""
        return self._hidden

    @cached_property
    def plan(self) -> str:
        """Made of what is no part."""
        return plans[self.id]

    @property
    def shown(self) -> str:
        """Made of the parts."""
        return f"{self.id!s} {self.role}"


plans: dict[int, str] = {}


class Viewer:
    """Properties alone."""

    @property
    def id(self) -> int:
        """What is likely to tell callers apart."""
        return 1

    @property
    def locale(self) -> str:
        """What else a page may depend on."""
        return ""


class Person(BaseModel):
    """A dependency may give a subclass."""

    id: int


class Member(Person):
    """One more part."""

    tenant: str


class Regular(Member):
    """Another one."""

    plan: str


class Open(BaseModel):
    """Anything else may come with it."""

    model_config = ConfigDict(extra="allow")
    id: int


class Hidden(BaseModel):
    """With a private part."""

    id: int
    _tenant: str = ""


class Lazy:
    """With parts that no declaration names."""

    id: int

    def __getattr__(self, name: str) -> str:
        return name


class Tenanted:
    @declared_attr
    def tenant(self) -> Mapped[str]:
        return mapped_column(sa.String)


class Columns(Tenanted, Base):
    """With columns that no annotation names."""

    __tablename__ = "columns"
    id: Mapped[int] = mapped_column(primary_key=True)
    role = sa.Column(sa.String)
    boss_id = mapped_column(sa.ForeignKey("columns.id"))
    boss = relationship("Columns", remote_side="Columns.id")
    of = synonym("role")


class Imperative:
    """Mapped from outside."""

    id: int


Base.registry.map_imperatively(
    Imperative,
    sa.Table("mapped", Base.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("role", sa.Text)),
)


class Descriptor:
    def __get__(self, of: Any, kind: Any) -> Any: ...


class Described:
    id: int
    role = Descriptor()

    @classmethod
    def make(cls) -> None: ...

    @staticmethod
    def plain() -> None: ...

    def method(self) -> None: ...


class Keeping:
    """With state that a method shows."""

    id: int

    def __init__(self) -> None:
        self._role = ""
        self.__tenant = ""

    def role(self) -> str:
        return self._role + self.__tenant


class Slotting:
    __slots__ = ("_role", "id")
    id: int


@dataclass
class Underscored:
    id: int
    _role: str


class Roles(list[str]):
    id: int


class Names(SimpleNamespace):
    id: int


class Denied(Exception):
    id: int


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (Columns, "boss, boss_id, of, role, tenant"),
        (Imperative, "role"),
        (Described, "role"),
        (Keeping, "_Keeping__tenant, _role"),
        (Slotting, "_role"),
        (Underscored, "_role"),
        (Roles, "all that Roles holds"),
        (Names, "all that Names holds"),
        (Denied, "all that Denied holds"),
        (Computed, "plan, tenant, _hidden"),
        (Viewer, "locale"),
        (Person, "plan (Regular), tenant (Member), tenant (Regular)"),
        (Person | None, "plan (Regular), tenant (Member), tenant (Regular)"),
        (Open, "all that Open does not declare"),
        (Hidden, "_tenant"),
        (Lazy, "all that Lazy does not declare"),
    ],
)
def test_what_no_field_declares_is_said_to_be_left_out(kind: Any, left: str) -> None:
    """Properties that are not made of the key's parts, private parts, parts of subclasses, and anything else."""
    assert key_text(kind).told.endswith(f": add what else a page may depend on, of {left}.")


def test_a_type_without_fields_is_told_by_its_properties() -> None:
    """They are what the author has to choose from."""
    told = key_text(BaseUser).told
    assert told.startswith("In place of id write what tells callers apart: BaseUser has display_name, identity, ")


class Owner(Base):
    """With a column, and with a row of another table under a name that divides callers."""

    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("callers.id"))
    tenant: Mapped[Account] = relationship()


Wide = make_dataclass(
    "Wide",
    [
        ("id", int, 1),
        ("roles", list[str], field(default_factory=list)),
        ("scopes", set[str], field(default_factory=set)),
        *((f"p{n}", int, 0) for n in range(9)),
    ],
)


class Rooted(RootModel[dict[str, str]]):
    """A mapping, as a model."""


def test_no_part_is_proposed_that_no_key_can_hold() -> None:
    """Such a line would start, and nothing would ever be stored: the part is named instead."""
    assert key_text(Owner) == (
        "lambda value: (value.id, value.tenant_id)",
        "The key has id, tenant_id of Owner: add what else a page may depend on, of tenant.",
    )
    assert key_text(Wide).text == "lambda value: (value.id, tuple(value.roles))"
    assert "scopes" in key_text(Wide).told
    assert key_text(Rooted).told == "In place of id write what tells callers apart: Rooted has root."


@pytest.mark.parametrize("kind", [Mapping[str, str], NewType("Payload", dict[str, str])])
def test_a_mapping_is_one_by_any_name(kind: Any) -> None:
    """No cache key can hold it: the line takes a part of it."""
    assert key_text(kind).text == "lambda value: value['sub']"
    assert key_text(NewType("Number", int)).text == "str"


class ByMethod:
    def __init__(self, name: str) -> None:
        self.id = name
        self._load(name)

    def _load(self, name: str) -> None:
        self.org = name


class ByMixin(ByMethod):
    def __init__(self, name: str) -> None:
        self.id = name


class ByDict:
    def __init__(self, **claims: str) -> None:
        self.id = claims["id"]
        self.__dict__.update(claims)


class BySetting:
    def __init__(self, **claims: str) -> None:
        self.id = claims["id"]
        for name, value in claims.items():
            setattr(self, name, value)


class ByMaking:
    id: str

    @classmethod
    def make(cls, name: str) -> ByMaking:
        made = cls()
        made.id = made.org = name  # type: ignore[attr-defined]
        return made


class ByInner:
    def __init__(self, name: str) -> None:
        self.id = name

        def more(it: Any) -> None:
            it.org = name

        more(self)


@dataclass
class After:
    id: int

    def __post_init__(self) -> None:
        self.org = str(self.id)


class Late(BaseModel):
    id: int

    def model_post_init(self, context: Any) -> None:
        object.__setattr__(self, "org", "acme")


@dataclass(frozen=True)
class Frozen:
    id: int


class Closed(BaseModel):
    id: int


@pytest.mark.parametrize("kind", [ByMethod, ByMixin, ByDict, BySetting, ByMaking, ByInner, After, Late])
def test_parts_that_are_set_elsewhere_are_in_the_key_or_said_to_be_left_out(kind: type) -> None:
    """By another method, of a class above too, by an inner function, or under a name that no code has."""
    text, told = key_text(kind)
    left = f"The key has id of {kind.__qualname__}: add what else a page may depend on, of "
    assert "value.org" in text or (told.startswith(left) and ("org" in told or "all that" in told))


@pytest.mark.parametrize("kind", [Frozen, Closed])
def test_what_a_library_writes_for_a_class_sets_nothing_else(kind: type) -> None:
    """A key of all that is declared is all."""
    assert key_text(kind) == ("lambda value: value.id", "")


def test_a_mapping_may_hold_more_than_its_type_declares() -> None:
    """A `TypedDict` has subclasses, and a decoded token claims that nobody wrote down."""
    assert key_text(Claims).told == (
        "The key has sub, tenant, act of Claims: add what else of it a page may depend on."
    )


def test_attributes_that_attrs_is_told_without_annotations_are_parts() -> None:
    """The methods that it writes name them, and are written nowhere that one could look."""
    attributes = tuple(SimpleNamespace(name=name) for name in ("id", "org"))
    text, told = key_text(type("User", (), {"__attrs_attrs__": attributes}))
    assert "value.org" in text or "org" in told
