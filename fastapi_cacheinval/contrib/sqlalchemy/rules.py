"""From a mapped class to its tags: templates over column attributes, functions of the object, a method on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from sqlalchemy import Table, inspect
from sqlalchemy.orm import Mapper

from fastapi_cacheinval import ConfigurationError, TagTemplate
from fastapi_cacheinval.contrib.sqlalchemy.errors import UnknownRows
from fastapi_cacheinval.contrib.sqlalchemy.schema import Dependent, Link, Side, among_rows, dependents, lineage, links
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import registries
from fastapi_cacheinval.contrib.sqlalchemy.tags import Function, Rules

__all__ = ["METHOD", "RuleBook", "Rules"]

METHOD = "__cache_tags__"

Rule: TypeAlias = str | Function
Tags: TypeAlias = Mapping[Any, Rule | Sequence[Rule]] | Function
Wide: TypeAlias = Mapping[Any, str | Sequence[str]]


def _stored(mapper: Mapper[Any]) -> list[str]:
    """The attributes that are columns of the class's tables, and no expressions over them."""
    stored = mapper.persist_selectable.c
    # Of the columns alone: relationships may name classes that are not there yet.
    return list(dict.fromkeys(key for key, column in mapper.columns.items() if stored.contains_column(column)))


def _name(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _by_method(target: Any) -> Iterable[str]:
    return cast("Iterable[str]", getattr(target, METHOD)())


@dataclass(slots=True)
class _Mapped:
    """What follows from all the classes that are mapped: worked out once, and anew when there are more of them."""

    rules: dict[Mapper[Any], Rules] = field(default_factory=dict[Mapper[Any], Rules])
    dependents: dict[Any, list[Dependent]] = field(default_factory=dict[Any, list[Dependent]])
    along: dict[Any, list[Mapper[Any]]] = field(default_factory=dict[Any, list[Mapper[Any]]])
    links: list[Link] | None = None
    on: dict[Any, list[Side]] = field(default_factory=dict[Any, list[Side]])
    updated_later: set[Mapper[Any]] | None = None


class RuleBook:
    """The rules of every class; what a mapped base declares holds for its subclasses too.

    Raises `ConfigurationError` for what is no mapped class, for an attribute that is no column of it, and for a
    malformed template.
    """

    def __init__(self, tags: Tags | None, wide: Wide | None) -> None:
        self._everywhere: Rules = Rules()
        self._declared: dict[Mapper[Any], Rules] = {}
        self._known: dict[Mapper[Any], Rules] = {}
        self._mapped = _Mapped()
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
                        f"{', '.join(_stored(mapper))}. What is further away is for a function of the object."
                    )
                if name not in _stored(mapper):
                    raise ConfigurationError(
                        f"{template.text!r}: {mapper.class_.__name__}.{name} is an expression that no row stores: a "
                        f"statement does not tell it. Take its columns, or a function: {mapper.class_.__name__}: "
                        f'[lambda row: [f"...{{row.{name}}}"]].'
                    )
        return Rules(templates, functions)

    def _wide_of(self, mapper: Mapper[Any], given: list[Any]) -> Rules:
        templates = [TagTemplate.parse(each) for each in given]
        if any(template.names for template in templates):
            raise ConfigurationError(f"wide: tags of {mapper.class_.__name__} stand for any row and take no values.")
        return Rules(wide=tuple(tag for template in templates if (tag := template.render({})) is not None))

    def forget(self, *_: object) -> None:
        """Another class is mapped."""
        self._mapped = _Mapped()

    def of(self, mapper: Mapper[Any]) -> Rules:
        """The rules of a mapped class with its sides, none where it has none."""
        mapped = self._mapped
        rules = mapped.rules.get(mapper)
        if rules is None:
            rules = mapped.rules[mapper] = replace(self.own(mapper), sides=tuple(self._sides(mapper)))
        return rules

    def own(self, mapper: Mapper[Any]) -> Rules:
        """The rules of a mapped class alone."""
        rules = self._known.get(mapper)
        if rules is None:
            rules = self._everywhere
            if hasattr(mapper.class_, METHOD):
                rules |= Rules(functions=(_by_method,))
            for base in reversed(list(mapper.iterate_to_root())):
                rules |= self._declared.get(base, Rules())
            self._known[mapper] = rules
        return rules

    def _sides(self, mapper: Mapper[Any]) -> Iterator[Side]:
        for table in mapper.tables:
            yield from (side for side in self.on(table) if side.other.base_mapper is not mapper.base_mapper)
            for link in self.links:
                if link.secondary is table and self._has_own(link.other):
                    yield Side(cast("Table", table), link.other, link)

    def on(self, table: Any) -> list[Side]:
        """The classes with tags that the rows of a table, or parts of rows, are mapped to."""
        found = self._mapped.on.get(table)
        if found is None:
            tops = [one for one in self.users(table) if one.inherits is None or table not in one.inherits.tables]
            found = self._mapped.on[table] = [Side(cast("Table", table), one) for one in tops if self._has_own(one)]
        return found

    def carried(self, mapper: Mapper[Any]) -> list[Link]:
        """The links of a class whose association rows matter besides their sides."""
        own = [link for link in self.links if link.mapper in lineage(mapper)]
        return [link for link in own if self.carries(link.secondary)]

    def carries(self, table: Any) -> bool:
        """Whether the end of a row of a table may change tags of classes that are mapped to it, or that go along."""
        return isinstance(table, Table) and bool(self.on(table) or self.dependents(cast("Table", table)))

    def _has_own(self, mapper: Mapper[Any]) -> bool:
        return any(self.own(each) for each in mapper.self_and_descendants)

    def beside(self, mapper: Mapper[Any]) -> list[Mapper[Any]]:
        """The classes of the sides of a class, whose own tags are a change's tags too."""
        return [each for side in self.of(mapper).sides for each in side.other.self_and_descendants]

    def whole(self, mapper: Mapper[Any]) -> bool:
        """Whether statements purge what stands for any row of a class, its sides included, and read nothing."""
        return bool(self.own(mapper).wide) and all(self.own(each).any_row is not None for each in self.beside(mapper))

    @property
    def links(self) -> list[Link]:
        """Every side of every association table, of every base."""
        mapped = self._mapped
        if mapped.links is None:
            # In every process in the same order, in which their rows may be locked.
            mapped.links = list(links(sorted(self.mappers, key=lambda mapper: _name(mapper.class_))))
        return mapped.links

    @property
    def updated_later(self) -> set[Mapper[Any]]:
        """The classes whose rows a relationship with `post_update` writes once they are written."""
        mapped = self._mapped
        if mapped.updated_later is None:
            every = [each for mapper in self.mappers for each in mapper.relationships if each.post_update]
            mapped.updated_later = {one for each in every for one in lineage(each.mapper)}
        return mapped.updated_later

    def dependents(self, kind: Mapper[Any] | Table) -> list[Dependent]:
        """What the database changes when rows of a class or of a table go, where that may matter to tags."""
        mapped = self._mapped
        found = mapped.dependents.get(kind)
        if found is None:
            sides = [link for link in self.links if isinstance(kind, Table) or link.mapper not in lineage(kind)]
            found = [
                each
                for each in dependents(kind, self.mappers)
                # The sides of association rows are looked up from either side without them.
                if not isinstance(each.kind, Table)
                or any(link.secondary is each.kind for link in sides)
                or (each.goes and next(dependents(each.kind, self.mappers), None) is not None)
            ]
            mapped.dependents[kind] = found
        return found

    def family(self, mapper: Mapper[Any]) -> list[Mapper[Any]]:
        """The mapper, and those of its descendants whose rules are other than their base's."""
        return [
            each
            for each in among_rows(mapper)
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
        return any(self.of(each) for each in among_rows(mapper))

    def concerns(self, mapper: Mapper[Any]) -> bool:
        """Whether a row's end may change tags: its own, those of the other sides of its links, of what goes along."""
        return self.tagged(mapper) or any(self.tagged(each) for each in self.along(mapper))

    def affected(self, tables: Iterable[Any], *, removes: bool) -> Iterator[Mapper[Any]]:
        """The classes whose tags a write to these tables may change, whatever its rows; `removes` where it deletes."""
        for table in tables:
            for mapper in self.users(table):
                yield mapper
                if removes:
                    for other in self.along(mapper):
                        yield from other.self_and_descendants
            if removes:
                yield from self.along(table)
            for link in self.links:
                if link.secondary is table:
                    yield from link.other.self_and_descendants

    def any_row(self, mappers: Iterable[Mapper[Any]], what: str, *, alone: bool = False) -> tuple[str, ...]:
        """The tags that stand for any row of these classes; raises `UnknownRows` where one has none.

        Those of their sides are among them, unless `alone`.
        """
        tags: dict[str, None] = {}
        for mapper in dict.fromkeys(one for each in mappers for one in (each, *(() if alone else self.beside(each)))):
            rules = self.own(mapper)
            if rules:
                wide = rules.any_row
                if wide is None:
                    raise UnknownRows(mapper.class_.__name__, what)
                tags.update(dict.fromkeys(wide))
        return tuple(tags)

    def along(self, kind: Mapper[Any] | Table) -> list[Mapper[Any]]:
        """The classes whose rows may go or change along with a row that goes: by its links, or by foreign keys."""
        mapped = self._mapped
        found = mapped.along.get(kind)
        if found is None:
            found = mapped.along[kind] = self._along(kind)
        return found

    def _along(self, kind: Mapper[Any] | Table) -> list[Mapper[Any]]:
        seen: dict[Mapper[Any], None] = {}
        gone: set[Any] = {kind}
        ahead: list[Mapper[Any] | Table] = [kind]
        while ahead:
            one = ahead.pop()
            kinds: list[Mapper[Any] | Table] = [one]
            if isinstance(one, Mapper):
                seen.update((link.other, None) for link in self.links if link.mapper in lineage(one))
                kinds = [*one.self_and_descendants, *(cast("Table", link.secondary) for link in self.carried(one))]
            else:
                seen.update((link.other, None) for link in self.links if link.secondary is one)
            seen.update((side.other, None) for each in kinds if isinstance(each, Table) for side in self.on(each))
            for other in (other for each in kinds for other in self.dependents(each)):
                if isinstance(other.kind, Mapper):
                    seen[other.kind] = None
                else:
                    seen.update((link.other, None) for link in self.links if link.secondary is other.kind)
                if other.goes and other.kind not in gone:
                    gone.add(other.kind)
                    ahead.append(other.kind)
        return list(seen)

    @property
    def mappers(self) -> list[Mapper[Any]]:
        """Every mapper there is: a method on a model counts before the model has been met."""
        return [mapper for registry in registries() for mapper in registry.mappers]
