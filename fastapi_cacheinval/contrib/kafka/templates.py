"""Templates of tags with columns in braces."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi_cacheinval import ConfigurationError

__all__ = ["Template"]

_LITERAL = re.compile(r"[\x21-\x7e]*\Z")
_COLUMN = re.compile(r"[^\[\].!:{}]+\Z")
_MOST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Template:
    """Text, and the column after each piece of it."""

    text: str
    parts: tuple[tuple[str, str | None], ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: object) -> Template:
        """Take an author's text apart; raises `ConfigurationError` for what can be no tag."""
        if not isinstance(text, str) or not text or len(text) > _MOST_BYTES:
            raise ConfigurationError(f"A tag is a str of 1 to {_MOST_BYTES} bytes, not {text!r}.")
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(
                f"The tag {text!r} has malformed braces ({error}); write {{{{ for a brace."
            ) from None
        for literal, name, spec, conversion in pieces:
            if not _LITERAL.match(literal):
                raise ConfigurationError(f"The tag {text!r} must be printable ASCII without white space.")
            if name is not None and (spec or conversion or not _COLUMN.match(name)):
                raise ConfigurationError(f"The tag {text!r} may hold only names of columns in braces.")
        parts = tuple((literal, name) for literal, name, _, _ in pieces)
        return cls(text, parts, tuple(name for _, name in parts if name is not None))

    def literal(self) -> str:
        """The tag of a template without columns; raises `ConfigurationError` for one that has some."""
        if self.names:
            raise ConfigurationError(f"There is no row to fill the columns of {self.text!r}.")
        return self.render({})

    def render(self, values: Mapping[str, str | None]) -> str:
        """The tag for the texts of its columns."""
        return "".join(literal + (values[name] or "" if name is not None else "") for literal, name in self.parts)
