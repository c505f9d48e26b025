"""What sessions are named by, and where SQLAlchemy's events of them are to be had."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from fastapi_cacheinval import ConfigurationError

__all__ = ["event_target"]

Sessions: TypeAlias = (
    Session
    | AsyncSession
    | type[Session]
    | type[AsyncSession]
    | sessionmaker[Any]
    | async_sessionmaker[Any]
    | scoped_session[Any]
    | async_scoped_session[Any]
)


def event_target(sessions: Any) -> Any:
    """The session or the class of sessions that events are listened to on.

    Asynchronous sessions of a factory or of a class get synchronous ones of a class of their own for that, so that
    nobody else's are watched. Raises `ConfigurationError` for anything else.
    """
    made: Any = sessions
    match sessions:
        case scoped_session() | async_scoped_session():
            return event_target(made.session_factory)
        case sessionmaker():
            return event_target(made.class_)
        case async_sessionmaker():
            theirs: Any = made.class_
            if not isinstance(theirs, type):
                raise ConfigurationError(
                    f"The class_ of this async_sessionmaker is {theirs!r}, and no class: give it a class, and what the "
                    "sessions are made with as arguments of async_sessionmaker()."
                )
            _checked(made.kw.get("sync_session_class") or made.class_.sync_session_class)
            if made not in _classes:
                # A `sessionmaker` has a class of its own from the start.
                made.class_ = _classes[made] = _subclass(made.class_)
            return event_target(_classes[made])
        case AsyncSession():
            return sessions.sync_session
        case Session():
            return sessions
        case type() if issubclass(sessions, Session):
            return sessions
        case type() if issubclass(sessions, AsyncSession):
            _checked(sessions.sync_session_class)
            return _behind(sessions)
        case _:
            raise ConfigurationError(
                "collect_changes() takes a sessionmaker, an async_sessionmaker, a scoped_session, a class of sessions "
                f"or a session, not {sessions!r}."
            )


def _is_maker(made_by: object) -> bool:
    return isinstance(made_by, sessionmaker)


def _checked(made_by: Any) -> Any:
    if not (_is_maker(made_by) or (isinstance(made_by, type) and issubclass(made_by, Session))):
        raise ConfigurationError(f"sync_session_class is a class of sessions or a sessionmaker, not {made_by!r}.")
    return made_by


def _behind(asynchronous: type[AsyncSession]) -> type[Session]:
    """The class whose events tell of a class's asynchronous sessions, and of its subclasses'.

    A subclass, or one session, may name another `sync_session_class` at any time. Only the moment in which a session is
    made tells which it has.
    """
    _listen_to_new_sessions()
    if asynchronous not in _behind_classes:
        _behind_classes[asynchronous] = _Behind()
    return _behind_classes[asynchronous].watched


class _Behind:
    """The synchronous sessions behind one class of asynchronous ones: each class of them is a subclass of `watched`."""

    def __init__(self) -> None:
        self.watched: type[Session] = _subclass(Session)
        self._own: dict[Any, Any] = {Session: self.watched}

    def owned(self, base: Any) -> Any:
        """A watched class, or factory, of the sessions that `base` makes."""
        if _is_maker(base):
            base.class_ = self.owned(base.class_)
            return base
        if not issubclass(_checked(base), self.watched) and base not in self._own:
            # The class itself first: what listens to its events came before us.
            self._own[base] = _subclass(base, self.watched)
        return self._own.get(base, base)


@cache
def _listen_to_new_sessions() -> None:
    """Have SQLAlchemy's own `__init__`, which every subclass calls, ask who watches the session that it makes."""
    made = AsyncSession.__init__

    @wraps(made)
    def init(self: Any, *args: Any, sync_session_class: Any = None, **more: Any) -> None:
        for asynchronous, behind in tuple(_behind_classes.items()):
            if isinstance(self, asynchronous):
                sync_session_class = behind.owned(sync_session_class or self.sync_session_class)
        made(self, *args, sync_session_class=sync_session_class, **more)

    AsyncSession.__init__ = init  # type: ignore[method-assign]


def _subclass(base: Any, *more: Any) -> Any:
    return type(base.__name__, (base, *more), {"__module__": base.__module__, "__doc__": base.__doc__})


# By the class of asynchronous sessions, and by their factory.
_behind_classes: WeakKeyDictionary[type[AsyncSession], _Behind] = WeakKeyDictionary()
_classes: WeakKeyDictionary[async_sessionmaker[Any], type[AsyncSession]] = WeakKeyDictionary()
