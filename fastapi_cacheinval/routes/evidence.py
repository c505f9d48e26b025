"""What speaks against sharing a route's responses, as values; `str()` gives the words of errors and of the audit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Cause", "Evidence"]


class Cause(Enum):
    """What it is, where that decides what an author has to change."""

    READS = auto()
    # A `Header()` of the handler's own, whose name is that of a credential, or looks like one.
    HEADER = auto()
    # A model that is handed all header fields.
    ALL_HEADERS = auto()
    # Fields of the response, which would be stored with it.
    SETS = auto()
    # Code of the route's own, outside its handler.
    ROUTE = auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that speaks against it: `what`, of the handler, the dependency or the route that `where` names.

    `name` is how the handler or the dependency is called. A `Cause.HEADER` has the parameter and the field that it
    reads, in lower case.
    """

    where: str
    what: str
    cause: Cause = Cause.READS
    name: str = ""
    parameter: str = ""
    header: str = ""

    def __str__(self) -> str:
        return f"{self.where} {self.name}: {self.what}" if self.name else f"{self.where}: {self.what}"
