"""Who has asked: the callers that tests have, as far as their requests tell them apart."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Scope

__all__ = ["Asked", "Caller", "Callers"]

_MOST = 6
_SHOWN = 16

# Fields that say how something is asked, and not by whom.
_TECHNICAL = frozenset(
    {
        b"age", b"baggage", b"cache-control", b"cacheinval-token", b"connection", b"content-length", b"content-type",
        b"dnt", b"expect", b"host", b"keep-alive", b"origin", b"pragma", b"priority", b"range", b"referer", b"te",
        b"traceparent", b"tracestate", b"trailer", b"transfer-encoding", b"upgrade", b"upgrade-insecure-requests",
        b"user-agent", b"via", b"x-correlation-id", b"x-request-id",
    }
)  # fmt: skip
_TECHNICAL_STARTS = (b"accept", b"if-", b"sec-")
# What is of the request or of the app; all else in a scope was put there by layers outside, and may say who asks.
_OF_THE_REQUEST = frozenset(
    {
        "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path",
        "app_root_path", "headers", "server", "extensions", "app", "router", "endpoint", "route", "path_params",
    }
)  # fmt: skip


def _tells(name: bytes) -> bool:
    return name not in _TECHNICAL and not name.startswith(_TECHNICAL_STARTS)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


@dataclass(frozen=True, eq=False, slots=True)
class Caller:
    """Who asks: header fields, what layers outside the cache had put into the scope, and the context they had left.

    `beside` is None for a caller of an earlier test: what was put there may be of a lifespan that is over. `of` is the
    middleware that it was met at.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    beside: Mapping[str, Any] | None
    context: Context
    of: weakref.ref[object]

    def __str__(self) -> str:
        if not self.headers:
            return "a caller without credentials"
        return ", ".join(
            f"{name.decode('latin-1')}: {value[:_SHOWN].decode('latin-1')}{'...' if len(value) > _SHOWN else ''}"
            for name, value in self.headers
        )


@dataclass(frozen=True, eq=False, slots=True)
class Asked:
    """A request as it came to a middleware, with its caller; `at` is the middleware as the app has it."""

    middleware: Any
    at: object
    scope: Mapping[str, Any]
    caller: Caller

    @classmethod
    def of(cls, middleware: Any, at: object, scope: Scope) -> Asked:
        """Copy what layers inside will write into."""
        kept = {key: _copied(value) for key, value in scope.items()}
        kept["headers"] = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
        headers = tuple([each for each in kept["headers"] if _tells(each[0])])
        beside = {key: value for key, value in kept.items() if key not in _OF_THE_REQUEST}
        return cls(middleware, at, kept, Caller(headers, beside, copy_context(), weakref.ref(at)))

    @property
    def target(self) -> str:
        """Method, path and query, as they are shown."""
        query = self.scope.get("query_string", b"").decode("latin-1")
        return f"{self.scope['method']} {self.scope['path']}{'?' if query else ''}{query}"

    def by(self, caller: Caller) -> dict[str, Any]:
        """The scope of the same request by another caller."""
        scope = {key: _copied(value) for key, value in self.scope.items()}
        scope["headers"] = [*(each for each in scope["headers"] if not _tells(each[0])), *caller.headers]
        if caller.beside is not None and caller.of() is self.at:
            # What layers outside have put in is of use where they are the same.
            for key in scope.keys() - _OF_THE_REQUEST:
                del scope[key]
            scope.update({key: _copied(value) for key, value in caller.beside.items()})
        return scope

    def context(self, caller: Caller) -> Context:
        """The context that layers outside leave for a caller."""
        return (caller if caller.of() is self.at else self.caller).context.copy()


class Callers:
    """The last callers that were met, by their header fields; one without any is always known."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[tuple[bytes, bytes], ...], Caller] = OrderedDict()

    def next_test(self) -> None:
        """Keep of those that were met what outlives a test."""
        for headers, caller in self._known.items():
            self._known[headers] = replace(caller, beside=None)

    def meet(self, caller: Caller) -> None:
        """Remember one."""
        self._known[caller.headers] = caller
        self._known.move_to_end(caller.headers)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def others(self, than: Caller) -> Iterator[Caller]:
        """All but this one."""
        if than.headers and () not in self._known:
            yield Caller((), than.beside, than.context, than.of)
        yield from [known for headers, known in self._known.items() if headers != than.headers]
