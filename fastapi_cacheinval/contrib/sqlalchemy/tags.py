"""The tags of one mapped class: of a row's values, of an object, of any row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi_cacheinval import TagTemplate, render_value
from fastapi_cacheinval.contrib.sqlalchemy.schema import Side

__all__ = ["Function", "Rules"]

Function: TypeAlias = Callable[[Any], Iterable[str] | None]


@dataclass(frozen=True, slots=True)
class Rules:
    """The tags of one mapped class: `keys` are the attributes that the templates take; `wide` stand for any row.

    `sides` are the rows of other classes that change with a row of it, whose tags are a change's tags too.
    """

    templates: tuple[TagTemplate, ...] = ()
    functions: tuple[Function, ...] = ()
    wide: tuple[str, ...] = ()
    sides: tuple[Side, ...] = ()

    @property
    def looked(self) -> bool:
        """Whether the row's values do not tell its tags: they have to be looked up."""
        return bool(self.functions or self.sides)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(name for template in self.templates for name in template.names)

    @property
    def any_row(self) -> tuple[str, ...] | None:
        """The tags that stand for whatever row: the wide ones, or templates that take no values; None without such."""
        if self.wide:
            return self.wide
        if self.functions or self.keys:
            return None
        return tuple(tag for template in self.templates if (tag := template.render({})) is not None)

    def mix(self, unwritten: Collection[str]) -> bool:
        """Whether a template takes values that a write leaves as they are besides those that it writes."""
        names = [template.names for template in self.templates]
        return any(0 < sum(name in unwritten for name in each) < len(each) for each in names)

    def rendered(self, values: Mapping[str, Any]) -> list[str]:
        """The tags of the templates for a row's values; of a class that has only wide ones, those."""
        if not self.templates and not self.functions:
            return list(self.wide)
        return [tag for template in self.templates if (tag := template.render(values)) is not None]

    def told(self, target: Any) -> list[str]:
        """The tags of the functions for an object."""
        return [tag for function in self.functions for tag in _each(function(target))]

    def __or__(self, other: Rules) -> Rules:
        return Rules(
            tuple(dict.fromkeys((*self.templates, *other.templates))),
            tuple(dict.fromkeys((*self.functions, *other.functions))),
            tuple(dict.fromkeys((*self.wide, *other.wide))),
            tuple(dict.fromkeys((*self.sides, *other.sides))),
        )

    def __bool__(self) -> bool:
        return bool(self.templates or self.functions or self.wide or self.sides)


def _each(tags: Iterable[str] | str | None) -> Iterable[str]:
    named = (tags,) if isinstance(tags, str) else tags or ()
    return (render_value(tag) or "" for tag in named)
