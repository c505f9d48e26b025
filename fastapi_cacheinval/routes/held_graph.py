"""What an object says of itself, and what the objects say that it leads to: text that is the same in every process.

Of what the app's author wrote every attribute counts. Of a library's object the public ones count, because the others
are its state; of what that one holds in its turn, only addresses do. Nothing is asked of an object of Python's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import FunctionType, SimpleNamespace
from typing import Any, cast

from fastapi_cacheinval.core.keys import as_bytes, encode
from fastapi_cacheinval.routes.held_members import opened
from fastapi_cacheinval.routes.held_objects import (
    Detail,
    address_of,
    attributes_of,
    got_by,
    plain_of,
    qualified_name,
    runs,
    whose,
)

__all__ = ["said_by"]

# A graph of more objects, or of longer ways, is described by those that are nearest.
_MOST_OBJECTS = 64
_LONGEST_WAY = 8
_MOST_SETTINGS = 32


def said_by(thing: object, detail: Detail) -> Iterator[tuple[bytes, object]]:
    """The classes and the text of an object and of all that it leads to, nearest first, each with the way to it.

    Beside that stands the class, or the function, that the app's author wrote; None where there is none.
    """
    waiting: deque[tuple[object, tuple[bytes, ...], bool]] = deque()
    waiting += ((each, (at,), False) for at, each in _leads_to(thing, library=False))
    seen: dict[int, object] = {}
    while waiting and len(seen) < _MOST_OBJECTS:
        step, way, in_library = waiting.popleft()
        author = _author_of(step)
        if id(step) in seen or author is None:
            continue
        # It is held for as long as its address stands for it.
        seen[id(step)] = step
        library = author == "a library's"
        if not (library and in_library):
            kind = step if isinstance(step, type) else type(step)
            yield encode((*way, qualified_name(kind).encode())), None if library else kind
        for name, value in attributes_of(step) if library else opened(attributes_of(step), detail):
            here = (*way, as_bytes(str(name)))
            hidden = library and (in_library or str(name).startswith("_"))
            text = address_of(value) if hidden else got_by(value) or plain_of(value, detail)
            if text is not None:
                yield encode((*here, text)), None
            # Each step is a name, and a place within what has that name.
            elif len(way) < 2 * _LONGEST_WAY and not (library and str(name).startswith("_")):
                waiting += ((each, (*here, at), library) for at, each in _leads_to(value, library=library))
            if detail.code and not library and runs(value):
                yield encode(here), value


def _author_of(thing: object) -> str | None:
    """Whose object it is; None for what is nobody's: a function, and an object of Python's own."""
    if isinstance(thing, SimpleNamespace):
        return "theirs"
    author = whose(thing if isinstance(thing, type) else type(thing))
    return None if author == "python's" or isinstance(thing, FunctionType) else author


def _leads_to(value: object, *, library: bool) -> Iterator[tuple[bytes, object]]:
    """The objects that a value is or has in it. A library's mappings are its settings, anybody else's may change."""
    if isinstance(value, tuple):
        yield from ((b"%d" % index, each) for index, each in enumerate(cast("tuple[object, ...]", value)))
    elif library and type(value) is dict:
        settings = cast("dict[Any, object]", value)
        if len(settings) <= _MOST_SETTINGS:
            yield from ((as_bytes(name), settings[name]) for name in sorted(n for n in settings if isinstance(n, str)))
    else:
        yield b"", value
