"""The context of a refresh: middleware around the cache does not run for it, but has set values for its request."""

from __future__ import annotations

from contextvars import Context
from typing import Any

__all__ = ["with_values_of"]

# What has one of these may be closed by the time that a refresh uses it, or while it does: sessions, connections.
_CLOSED = ("close", "aclose", "__exit__", "__aexit__")
# Whose spans and tags are a request's own.
_OF_A_REQUEST = frozenset({"fastapi_cacheinval", "opentelemetry", "sentry_sdk"})
_UNSET: Any = object()


def with_values_of(caller: Context, start: Context) -> Context:
    """A copy of the context of start-up, with the values that the caller's has beside or in place of its own.

    A tenant, a language or a user that middleware outside the cache has set is one of them; what can be closed is not.
    """
    made = start.copy()
    for variable, value in caller.items():
        if start.get(variable, _UNSET) is not value and _outlasts(value):
            made.run(variable.set, value)
    return made


def _outlasts(value: object) -> bool:
    """Whether a value can be used when the request is over."""
    kinds = type(value).__mro__
    if any(kind.__module__.partition(".")[0] in _OF_A_REQUEST for kind in kinds):
        return False
    return not any(name in vars(kind) for kind in kinds for name in _CLOSED)
