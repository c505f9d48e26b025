"""What users give a source: what is told of each purge, and what becomes of an event that cannot be read."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.sources.changes import Change

__all__ = ["DROP", "KEEP", "Decision", "OnUnreadable", "Then", "Unread", "answer_to", "on_unreadable_of"]


class Unread(Enum):
    """What becomes of an event that cannot be read: `KEEP` it for another try, or `DROP` it and lose its change."""

    KEEP = "keep"
    DROP = "drop"


KEEP: Final = Unread.KEEP
"""An answer about an event that cannot be read: keep it, and try it again."""
DROP: Final = Unread.DROP
"""An answer about an event that cannot be read: drop it, and lose its change."""

Then: TypeAlias = Callable[[Receipt], Awaitable[None]]
"""What is awaited with the receipt of each purge before its event is forgotten."""

Decision: TypeAlias = Change | Unread
OnUnreadable: TypeAlias = Callable[[Any, Exception], Awaitable[Decision] | Decision] | Unread
"""What is asked about each event that cannot be read, with its error; or the same answer to all."""


def on_unreadable_of(
    given: OnUnreadable | None, old: object, ask: Callable[[Any, Any, Exception], Any] | None = None
) -> Any:
    """What stands for `on_unreadable`, checked; `old` is what was given as `on_poison`, which was its name in 0.1.

    `ask` calls the old function, by default as the new one is called: it answers with tags, "leave", or "delete" or
    None. Raises `ConfigurationError` for what cannot be asked.
    """
    fixed = {"delete": DROP, "leave": KEEP}
    for name, one in (("on_unreadable", given), ("on_poison", old)):
        known = isinstance(one, Unread) if name == "on_unreadable" else one in ("delete", "leave")
        if one is not None and not known and not callable(one):
            raise ConfigurationError(f"{name} is a function of an event and its error, KEEP or DROP, not {one!r}.")
    if old is None:
        return given
    if given is not None:
        raise ConfigurationError("on_poison is the old name of on_unreadable: give on_unreadable alone.")
    warnings.warn(
        "on_poison is on_unreadable now: a function of the event and its error that answers with a Change, KEEP or "
        "DROP of fastapi_cacheinval.sources.",
        DeprecationWarning,
        stacklevel=3,
    )
    if isinstance(old, str):
        return fixed[old]

    async def asked(event: object, error: Exception) -> Decision:
        answer = await (cast("Any", old)(event, error) if ask is None else ask(old, event, error))
        if answer is None:
            return DROP
        if isinstance(answer, Unread):
            return answer
        if isinstance(answer, str):
            return fixed[answer]
        return Change.of(answer)

    return asked


async def answer_to(asked: OnUnreadable | None, event: object, error: Exception, otherwise: Decision) -> Decision:
    """What is to become of an event that cannot be read, `otherwise` where nobody says.

    Raises what the function does, and `TypeError` for an answer that is none.
    """
    if asked is None or isinstance(asked, Unread):
        return asked or otherwise
    found: Any = asked(event, error)
    answer: Any = await found if inspect.isawaitable(found) else found
    if not isinstance(answer, Change | Unread):
        raise TypeError(f"on_unreadable answers with a Change, KEEP or DROP, not {type(answer).__name__}")
    return answer
