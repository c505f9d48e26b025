"""From a mapped class to its tags: templates over column attributes, functions of the object, a method on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from sqlalchemy import inspect
from sqlalchemy.orm import Mapper

from fastapi_cacheinval import ConfigurationError, TagTemplate, render_value
from fastapi_cacheinval.contrib.sqlalchemy.schema import dependents, lineage, links
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import registries

__all__ = ["METHOD", "RuleBook", "Rules"]

METHOD = "__cache_tags__"

Function: TypeAlias = Callable[[Any], Iterable[str]]
Rule: TypeAlias = str | Function
Tags: TypeAlias = Mapping[Any, Rule | Sequence[Rule]] | Function
Wide: TypeAlias = Mapping[Any, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Rules:
    """The tags of one mapped class: `keys` are the attributes that the templates take; `wide` stand for any row."""

    templates: tuple[TagTemplate, ...] = ()
    functions: tuple[Function, ...] = ()
    wide: tuple[str, ...] = ()

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

    def rendered(self, values: Mapping[str, Any]) -> list[str]:
        """The tags of the templates for a row's values; of a class that has only wide ones, those."""
        if not self.templates and not self.functions:
            return list(self.wide)
        return [tag for template in self.templates if (tag := template.render(values)) is not None]

    def told(self, target: Any) -> list[str]:
        """The tags of the functions for an object."""
        return [tag for function in self.functions for tag in _checked(function, function(target))]

    def __or__(self, other: Rules) -> Rules:
        return Rules(
            tuple(dict.fromkeys((*self.templates, *other.templates))),
            tuple(dict.fromkeys((*self.functions, *other.functions))),
            tuple(dict.fromkeys((*self.wide, *other.wide))),
        )

    def __bool__(self) -> bool:
        return bool(self.templates or self.functions or self.wide)


def _checked(function: Function, tags: Iterable[str] | None) -> Iterable[str]:
    if isinstance(tags, str):
        raise ConfigurationError(f"{function!r} gives the tags of an object as an iterable of str, not {tags!r}.")
    return () if tags is None else (render_value(tag) or "" for tag in tags)


def _by_method(target: Any) -> Iterable[str]:
    return cast("Iterable[str]", getattr(target, METHOD)())


class RuleBook:
    """The rules of every class; what a mapped base declares holds for its subclasses too.

    Raises `ConfigurationError` for what is no mapped class, for an attribute that is no column of it, and for a
    malformed template.
    """

    def __init__(self, tags: Tags | None, wide: Wide | None) -> None:
        self._everywhere: Rules = Rules()
        self._declared: dict[Mapper[Any], Rules] = {}
        self._known: dict[Mapper[Any], Rules] = {}
        if callable(tags):
            self._everywhere = Rules(functions=(tags,))
        elif tags is not None:
            self._read("tags", tags, self._of_class)
        if wide is not None:
            self._read("wide", wide, self._wide_of)

    def _read(self, name: str, declared: Any, read: Callable[[Mapper[Any], list[Any]], Rules]) -> None:
        if not isinstance(declared, Mapping):
            raise ConfigurationError(f"{name} maps classes to tags, not {declared!r}.")
        every: dict[Any, Any] = dict(cast("Any", declared))
        for cls, given in every.items():
            found: Any = inspect(cls, raiseerr=False)
            if not isinstance(found, Mapper):
                raise ConfigurationError(f"{name}: {cls!r} is no mapped class.")
            each: list[Any] = [given]
            if not isinstance(given, str) and not callable(given):
                each = list(cast("Any", given)) if isinstance(given, Sequence) else []
            if not each:
                raise ConfigurationError(f"{name}: {cls.__name__} has a list of tags, not {given!r}.")
            mapper: Mapper[Any] = cast("Any", found)
            self._declared[mapper] = self._declared.get(mapper, Rules()) | read(mapper, each)

    def _of_class(self, mapper: Mapper[Any], given: list[Any]) -> Rules:
        functions = cast("tuple[Function, ...]", tuple(each for each in given if callable(each)))
        templates = tuple(TagTemplate.parse(each) for each in given if not callable(each))
        for template in templates:
            for name in template.names:
                if name not in mapper.columns:
                    raise ConfigurationError(
                        f"{template.text!r}: {mapper.class_.__name__} has no column attribute {name!r}; it has "
                        f"{', '.join(mapper.columns.keys())}. What is further away is for a function of the object."
                    )
        return Rules(templates, functions)

    def _wide_of(self, mapper: Mapper[Any], given: list[Any]) -> Rules:
        templates = [TagTemplate.parse(each) for each in given]
        if any(template.names for template in templates):
            raise ConfigurationError(f"wide: tags of {mapper.class_.__name__} stand for any row and take no values.")
        return Rules(wide=tuple(tag for template in templates if (tag := template.render({})) is not None))

    def of(self, mapper: Mapper[Any]) -> Rules:
        """The rules of a mapped class, none where it has none."""
        rules = self._known.get(mapper)
        if rules is None:
            rules = self._everywhere
            if hasattr(mapper.class_, METHOD):
                rules |= Rules(functions=(_by_method,))
            for base in reversed(list(mapper.iterate_to_root())):
                rules |= self._declared.get(base, Rules())
            self._known[mapper] = rules
        return rules

    def family(self, mapper: Mapper[Any]) -> list[Mapper[Any]]:
        """The mapper, and those of its descendants whose rules are other than their base's."""
        return [
            each
            for each in mapper.self_and_descendants
            if each is mapper or each.inherits is None or self.of(each) != self.of(each.inherits)
        ]

    def owner(self, table: Any) -> Mapper[Any] | None:
        """The class that a table was made for, above all that share it."""
        for mapper in self.mappers:
            if mapper.local_table is table and (mapper.inherits is None or mapper.inherits.local_table is not table):
                return mapper
        return None

    def users(self, table: Any) -> list[Mapper[Any]]:
        """Every class with a part of its rows in a table."""
        return [mapper for mapper in self.mappers if table in mapper.tables]

    def tagged(self, mapper: Mapper[Any]) -> bool:
        """Whether a row of the class may have tags."""
        return any(self.of(each) for each in mapper.self_and_descendants)

    def concerns(self, mapper: Mapper[Any]) -> bool:
        """Whether a row's end may change tags: its own, those of the other sides of its links, of what goes along."""
        return self.tagged(mapper) or any(self.tagged(each) for each in self.along(mapper))

    def along(self, mapper: Mapper[Any]) -> list[Mapper[Any]]:
        """The classes whose rows may go or change along with a row that goes: by its links, or by foreign keys."""
        seen: dict[Mapper[Any], None] = {}
        gone, ahead = {mapper}, [mapper]
        while ahead:
            one = ahead.pop()
            seen.update((link.other, None) for link in links(one.registry.mappers) if link.mapper in lineage(one))
            for other, goes in (
                (other, goes) for each in one.self_and_descendants for other, *_, goes in dependents(each)
            ):
                seen[other] = None
                if goes and other not in gone:
                    gone.add(other)
                    ahead.append(other)
        return list(seen)

    @property
    def mappers(self) -> list[Mapper[Any]]:
        """Every mapper there is: a method on a model counts before the model has been met."""
        return [mapper for registry in registries() for mapper in registry.mappers]
