"""What a fill is told by its mode: what becomes of a response's start, what is kept of it, what clients see of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from starlette.types import Send

from fastapi_cacheinval.core.selecting import Selector
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.grammar.fields import RawField

__all__ = ["Contradict", "Cover", "FillRules", "Form", "Freshen", "Keep", "Made", "Refuse", "StartVerdict", "outdates"]


def outdates(status: int) -> bool:
    """Whether an answer with this status says that what is stored is wrong, though it is not stored itself."""
    return status < 400 or status in (404, 410)


@dataclass(frozen=True, slots=True)
class Made:
    """A response as it would be kept under a key, and the request fields that select it."""

    key: bytes
    stored: StoredResponse
    chosen: tuple[Selector, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """The response may be kept once it is complete."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The response is passed on and not kept, for the reason `detail`.

    `failed` says that the forward counts as a failure, so that one more may lead; `outdated` that what is stored for
    the request is known to be wrong by it.
    """

    detail: str
    failed: bool
    outdated: bool


@dataclass(frozen=True, slots=True)
class Cover:
    """The response is an error, or of no use, and the stored response `stale` stands in for it."""

    stale: StoredResponse


@dataclass(frozen=True, slots=True)
class Contradict:
    """The response is a 304 that speaks of another response than the stored one: nothing of it is used."""


@dataclass(frozen=True, slots=True)
class Freshen:
    """The app says that a stored response is still right: `made` is that response with its new fields.

    `refused` says why it is not kept all the same, `outdated` whether the old one is known to be wrong by it; `own`
    are fields for this client alone, `age` the lines by which a cache upstream says how old the response is.
    """

    made: Made
    refused: str | None
    outdated: bool
    own: list[RawField]
    age: list[RawField]


StartVerdict = Keep | Refuse | Cover | Contradict | Freshen


class Form(Enum):
    """What a response's fields are written for."""

    REFUSED = "a response that is not kept, as its start showed"
    UNKEPT = "a response that is not kept after all"
    STREAMED = "the first answer of a response whose end is still to come"


class FillRules(Protocol):
    """One fill's rules, made for its request."""

    @property
    def began(self) -> float:
        """When the forward began, on the cache's clock."""
        ...

    @property
    def split(self) -> bool:
        """Whether clients choose by their query which keys there are."""
        ...

    @property
    def for_others(self) -> bool:
        """Whether an answer that is not stored says something of what is stored for others."""
        ...

    def accept(
        self, status: int, headers: list[RawField], *, trailers: bool, stale: StoredResponse | None
    ) -> StartVerdict:
        """What becomes of a response that begins so; `stale` may stand in for an error."""
        ...

    def make(self, status: int, headers: list[RawField], body: bytes) -> Made | Refuse:
        """The complete response as it would be kept; or why it is not."""
        ...

    def kept(self, stored: StoredResponse) -> None:
        """The response has been stored."""
        ...

    def outdate(self) -> None:
        """The response is not kept, and speaks against what is stored: let go of that."""
        ...

    def fields(self, form: Form, headers: list[RawField]) -> list[RawField]:
        """The fields that the client sees of a response that is not sent from what is stored."""
        ...

    def first_fields(self, headers: list[RawField], stored: StoredResponse) -> list[RawField]:
        """The fields of the answer that a response is stored from."""
        ...

    def has_it(self, status: int, headers: list[RawField]) -> bool:
        """Whether the client's condition, which the app has not seen, asks for a 304 in the response's place."""
        ...

    async def reply(self, send: Send, stored: StoredResponse, fields: list[RawField]) -> None:
        """Send a complete response with these fields, or what of it the request asks for."""
        ...

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stale response may stand in for a failure, now."""
        ...
