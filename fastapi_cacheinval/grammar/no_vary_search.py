"""No-Vary-Search: which parts of a query do not change a response (draft-ietf-httpbis-no-vary-search)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from fastapi_cacheinval.grammar.structured import InnerList, Item, Member, Token, parse_dictionary, serialise_dictionary

__all__ = ["EVERYTHING_COUNTS", "NoVarySearch", "parse_no_vary_search", "serialise_no_vary_search"]

_MOST_PARAMETERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class NoVarySearch:
    """What of a query counts: `only` these names where it is not None, else all but `ignored`; order, unless not."""

    ignored: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    order: bool = True

    def significant(self, query: bytes) -> tuple[str, ...]:
        """Names and values that count, flat, sorted by name where their order does not count.

        Two queries are equivalent for this response where these are equal.
        """
        text = query.decode("latin-1")
        if text.count("&") >= _MOST_PARAMETERS:
            return (text,)
        pairs = parse_qsl(text, keep_blank_values=True)
        kept = [pair for pair in pairs if (pair[0] not in self.ignored if self.only is None else pair[0] in self.only)]
        if not self.order:
            kept.sort(key=lambda pair: pair[0])
        return tuple(text for pair in kept for text in pair)


EVERYTHING_COUNTS: Final = NoVarySearch()


def parse_no_vary_search(values: Sequence[bytes]) -> NoVarySearch:
    """What the field says; everything counts where it is absent or malformed, or where `except` stands alone."""
    members = parse_dictionary(values) if values else None
    if not members:
        return EVERYTHING_COUNTS
    order = _flag(members.get("key-order"))
    params = members.get("params")
    names = _names(params)
    excepted = _names(members.get("except"))
    all_ignored = _flag(params) if names is None else False
    if order is None or all_ignored is None or ("except" in members and (excepted is None or not all_ignored)):
        return EVERYTHING_COUNTS
    return NoVarySearch(names or frozenset(), (excepted or frozenset()) if all_ignored else None, order=not order)


def serialise_no_vary_search(rule: NoVarySearch) -> bytes:
    """The field's value; empty where everything counts. Names outside printable ASCII cannot be written."""
    members: dict[str, Member] = {}
    if not rule.order:
        members["key-order"] = Item(value=True, parameters={})
    if rule.only is not None:
        members["params"] = Item(value=True, parameters={})
        if rule.only:
            members["except"] = _inner(rule.only)
    elif rule.ignored:
        members["params"] = _inner(rule.ignored)
    return serialise_dictionary(members)


def _inner(names: frozenset[str]) -> InnerList:
    return InnerList(tuple(Item(name, {}) for name in sorted(names)), {})


def _flag(member: Member | None) -> bool | None:
    """A boolean, False where there is none; None for anything else."""
    if member is None:
        return False
    return member.value if isinstance(member, Item) and isinstance(member.value, bool) else None


def _names(member: Member | None) -> frozenset[str] | None:
    if not isinstance(member, InnerList):
        return None
    names: set[str] = set()
    for item in member.items:
        if type(item.value) is not str or isinstance(item.value, Token):
            return None
        names.add(dict(parse_qsl(item.value + "=", keep_blank_values=True)).popitem()[0] if item.value else "")
    return frozenset(names)
