"""What a flush is about to write: that is known when the app's own listeners are through, which come last.

Before a row is written they may change it, and others that were only touched. No event of objects comes after them, so
that the statement itself is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper, Session

from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity
from fastapi_cacheinval.contrib.sqlalchemy.looking import Places
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import is_of_flush
from fastapi_cacheinval.contrib.sqlalchemy.states import is_changed, state_of

__all__ = ["Held", "Unsure"]


@dataclass(slots=True)
class Held:
    """What rows of a class were tagged with before the flush began; `beside` are the rows of others with these tags."""

    connection: Connection
    mapper: Mapper[Any]
    rows: set[Identity]
    tags: list[str]
    beside: Places


class _Look(Protocol):
    def __call__(self, *, last: bool) -> None: ...


@dataclass(slots=True)
class Unsure:
    """The objects of the batch whose statements come next, and who listens for these.

    `replaced` are written in any case, `targets` where they are changed. `held` are tags of rows that may be written.
    """

    held: list[Held] = field(default_factory=list[Held])
    replaced: list[Any] = field(default_factory=list[Any])
    targets: list[Any] = field(default_factory=list[Any])
    look: _Look | None = None
    heard: dict[Connection, Callable[..., None]] = field(default_factory=dict[Connection, Callable[..., None]])

    def listen(self, connection: Connection) -> None:
        """Listen for the statements of a connection that the flush writes on."""
        if connection not in self.heard:
            event.listen(connection, "before_execute", self._heard)
            self.heard[connection] = self._heard

    def wait(self, replaced: list[Any], targets: list[Any]) -> None:
        """Call `look` before each statement, up to the first one of the flush itself."""
        # Where SQLAlchemy writes several batches as one, all of them wait.
        self.replaced += replaced
        self.targets += targets

    def _heard(
        self, connection: Connection, clauseelement: Any, multiparams: Any, params: Any, execution_options: Any
    ) -> None:
        # A listener of the app may send statements of its own, and a look does.
        if self.look is not None and self.targets:
            self.look(last=is_of_flush(execution_options, self.targets[0]))

    def settled(self, session: Session, *, last: bool) -> list[Any]:
        """Those that are to be written, of which this has not been said; the `last` time forget the others."""
        found, rest = [*self.replaced], list[Any]()
        for target in self.targets:
            # A new row is written whatever stands in it.
            is_written = state_of(target).key is None or is_changed(session, target)
            (found if is_written else rest).append(target)
        self.replaced, self.targets = [], [] if last else rest
        return found

    def sent(self) -> None:
        """The statements of the batch have been sent; where there was none, `post_update` may write its rows yet."""
        if self.look is not None and self.targets:
            self.look(last=True)

    def release(self, connection: Connection, mapper: Mapper[Any], rows: Iterable[Identity]) -> list[Held]:
        """The tags held for one of these rows, which is about to be written."""
        if not self.held:
            return []
        given = set(rows)
        found = [
            one
            for one in self.held
            if one.connection is connection and one.mapper is mapper and not one.rows.isdisjoint(given)
        ]
        self.held = [one for one in self.held if one not in found]
        return found

    def stop(self) -> None:
        """The flush is over, or has failed."""
        self.look = None
        while self.heard:
            connection, heard = self.heard.popitem()
            event.remove(connection, "before_execute", heard)
