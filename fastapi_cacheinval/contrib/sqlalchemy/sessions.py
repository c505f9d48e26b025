"""What sessions are named by, and where SQLAlchemy's events of them are to be had."""

from __future__ import annotations

from typing import Any, TypeAlias

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

    A factory of asynchronous sessions, or a class of them, gets a class of synchronous ones of its own for that, so
    that nobody else's are watched. Raises `ConfigurationError` for anything else.
    """
    made: Any = sessions
    match sessions:
        case scoped_session() | async_scoped_session():
            return event_target(made.session_factory)
        case sessionmaker():
            return made.class_
        case async_sessionmaker():
            own = _own(made.kw.get("sync_session_class") or made.class_.sync_session_class)
            made.configure(sync_session_class=own)
            return event_target(own)
        case AsyncSession():
            return sessions.sync_session
        case Session():
            return sessions
        case type() if issubclass(sessions, Session):
            return sessions
        case type() if issubclass(sessions, AsyncSession):
            sessions.sync_session_class = _own(sessions.sync_session_class)
            return sessions.sync_session_class
        case _:
            raise ConfigurationError(
                "collect_changes() takes a sessionmaker, an async_sessionmaker, a scoped_session, a class of sessions "
                f"or a session, not {sessions!r}."
            )


def _own(base: Any) -> Any:
    if isinstance(base, sessionmaker):
        return event_target(base)
    if not (isinstance(base, type) and issubclass(base, Session)):
        raise ConfigurationError(f"sync_session_class is a class of sessions or a sessionmaker, not {base!r}.")
    return type(base.__name__, (base,), {"__module__": base.__module__, "__doc__": base.__doc__})
