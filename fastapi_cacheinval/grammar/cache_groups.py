"""Cache-Groups and Cache-Group-Invalidation: names of groups of responses of one origin (RFC 9875)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastapi_cacheinval.grammar.structured import Item, Token, parse_list, serialise_list

__all__ = ["parse_cache_groups", "serialise_cache_groups"]


def parse_cache_groups(values: Sequence[bytes]) -> tuple[str, ...]:
    """The groups of all lines, in order, without duplicates; never raises.

    The field is a structured list of strings: where it is malformed, or a member is anything else, it
    is ignored whole. The comparison is by character.
    """
    members = parse_list(values)
    if not members:
        return ()
    names: dict[str, None] = {}
    for member in members:
        if not isinstance(member, Item) or type(member.value) is not str or isinstance(member.value, Token):
            return ()
        names[member.value] = None
    return tuple(names)


def serialise_cache_groups(names: Iterable[str]) -> bytes:
    """The field's value; the names are printable ASCII."""
    return serialise_list(Item(name, {}) for name in names)
