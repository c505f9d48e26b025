"""Keeping an answer that is not for everybody out of shared caches downstream (RFC 9111 section 5.2.2.7, RFC 9213)."""

from __future__ import annotations

from functools import lru_cache

from fastapi_cacheinval.grammar.fields import OWS, RawHeaders, split_list, values

__all__ = ["made_private", "says_shared"]

_CONTROL = b"cache-control"
# What lets a shared cache keep an answer, or makes less of `private`.
_SHARING = frozenset({b"public", b"s-maxage"})
_KEEPING_OUT = frozenset({b"private", b"no-store"})
_DROPPED = _SHARING | {b"private", b"immutable"}
# Fields by which certain caches keep an answer whatever `Cache-Control` says end so: those of CDNs, of gateways and of
# servers. nginx has a number instead. Browsers alone read the other one.
_TARGETED = b"-control"
_OF_NGINX = b"x-accel-expires"
_OF_BROWSERS = b"x-dns-prefetch-control"
_EXPIRES = b"expires"
# With all that end as those for certain caches do, the fields by which caches are told what they may keep.
_NAMED = frozenset({_CONTROL, _EXPIRES, _OF_NGINX})
# Such a field stays if it says one of these in so many words, and nothing but what makes less of keeping beside it.
_FORBIDDING = frozenset({b"no-store", b"private", b"no-cache"})
_HARMLESS = _FORBIDDING | {b"max-age=0", b"s-maxage=0", b"must-revalidate", b"proxy-revalidate", b"no-transform"}


def made_private(fields: RawHeaders) -> list[tuple[bytes, bytes]] | None:
    """The fields of an answer, in lower-case names, so that no shared cache keeps it; None where they are so already.

    `public`, `s-maxage` and `immutable` go, a bare `private` comes, and all else of `Cache-Control` stays for the
    browser. Fields for CDNs that allow anything go. Nothing is added to an answer without any word on its lifetime.
    """
    # Answers say the same few things in these fields, and are many.
    kept_out, allowing = _judged(tuple([line for line in fields if line[0].endswith(_TARGETED) or line[0] in _NAMED]))
    if kept_out:
        return None if not allowing else [line for line in fields if line not in allowing]
    lines = values(fields, _CONTROL)
    members = [b"private", *(member for line in lines for member in split_list(line) if _name(member) not in _DROPPED)]
    made: list[tuple[bytes, bytes]] = []
    control: tuple[bytes, bytes] | None = (_CONTROL, b", ".join(members))
    for line in fields:
        if line[0] == _CONTROL:
            made += [control] if control is not None else []
            control = None
        elif line not in allowing:
            made.append(line)
    return [*made, control] if control is not None else made


@lru_cache(maxsize=256)
def _judged(said: tuple[tuple[bytes, bytes], ...]) -> tuple[bool, frozenset[tuple[bytes, bytes]]]:
    """Whether `Cache-Control` keeps shared caches out by these fields, and which of them still allow some."""
    lines = values(said, _CONTROL)
    allowing = frozenset(line for line in said if _allows(line))
    if not lines:
        return not allowing and not values(said, _EXPIRES), allowing
    # In so many words: caches downstream may not see through a misspelt one.
    bare = {member.lower() for line in lines for member in split_list(line)}
    return not _KEEPING_OUT.isdisjoint(bare) and _SHARING.isdisjoint(_names(lines)), allowing


def says_shared(fields: RawHeaders) -> bytes | None:
    """What of an answer's fields says in so many words that shared caches may keep it; None where nothing does."""
    for name, value in fields:
        if (name == _CONTROL and not _SHARING.isdisjoint(_names([value]))) or _allows((name, value)):
            return name + b": " + value
    return None


def _name(member: bytes) -> bytes:
    return member.partition(b"=")[0].rstrip(OWS).lower()


def _names(lines: list[bytes]) -> set[bytes]:
    return {_name(member) for line in lines for member in split_list(line)}


def _allows(line: tuple[bytes, bytes]) -> bool:
    """Whether a line is meant for certain shared caches, and does not plainly forbid them to keep the answer.

    Each of them has a grammar of its own, so that whatever is not known to forbid it counts as what allows it.
    """
    name, value = line
    if name == _OF_NGINX:
        return value.strip(OWS) != b"0"
    if not name.endswith(_TARGETED) or name in (_CONTROL, _OF_BROWSERS):
        return False
    members = {member.strip(OWS).lower() for member in split_list(value)}
    return not (members <= _HARMLESS and members & _FORBIDDING)
