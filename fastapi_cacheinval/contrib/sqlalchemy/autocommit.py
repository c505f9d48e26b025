"""Whether what has been written on a connection stands already, before any commit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import is_set_to_autocommit

__all__ = ["stands", "will_stand"]

# Of the server's status in MySQL's protocol, and of libpq: in a transaction, and in one that has failed.
_IN_TRANSACTION = 1
_BEGUN = (2, 3)


def stands(connection: Connection) -> bool:
    """Whether the last write on a connection is committed already: it is in autocommit, by whichever way."""
    if connection.closed or connection.invalidated:
        return False
    # What the driver says of the moment counts: a transaction may have been begun by hand (a recipe for SQLite).
    driver: Any = connection.connection.driver_connection
    inside = getattr(driver, "in_transaction", None)
    if isinstance(inside, bool):
        return not inside
    ask = getattr(driver, "is_in_transaction", None)
    if callable(ask):
        return not ask()
    return not _is_begun(driver) and _is_set(connection)


def will_stand(connection: Connection) -> bool:
    """Whether the next write on a connection will be committed at once; a driver may begin a transaction for it."""
    if not stands(connection):
        return False
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return driver.isolation_level is None or getattr(driver, "autocommit", None) is True
    return _is_set(connection)


def _is_begun(driver: Any) -> bool:
    """Whether PyMySQL or psycopg says that the server is in a transaction; in autocommit SQL has begun it."""
    status = getattr(driver, "server_status", 0)
    of_server = isinstance(status, int) and bool(status & _IN_TRANSACTION)
    return of_server or getattr(getattr(driver, "info", None), "transaction_status", 0) in _BEGUN


def _is_set(connection: Connection) -> bool:
    """Whether a connection is set to autocommit, for all that SQLAlchemy or the driver knows."""
    made: Any = connection.connection.dbapi_connection
    if is_set_to_autocommit(connection):
        return True
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)
    if detect is not None:
        try:
            return bool(detect(made))
        except NotImplementedError:
            pass
    return getattr(made, "autocommit", False) is True
