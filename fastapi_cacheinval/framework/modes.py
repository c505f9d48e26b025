"""The two modes: a request that every guard has let through is answered by policies, or by what headers say."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.framework.ahead import ReadAhead
from fastapi_cacheinval.framework.app_context import Mode
from fastapi_cacheinval.framework.exchange import Exchange, run_app
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.mutation import Mutation
from fastapi_cacheinval.framework.reading import Read
from fastapi_cacheinval.framework.rfc9111.lookup import HeaderLookup
from fastapi_cacheinval.framework.rfc9111.mutation import HeaderMutation
from fastapi_cacheinval.framework.rfc9111.resource import Resource, SearchRules
from fastapi_cacheinval.framework.route_target import Asks

__all__ = ["MODES", "ByHeaders", "ByPolicy", "mode_of"]


class ByPolicy:
    """Routes with `cached()` are looked up once they ask; all others are passed on."""

    by_headers = False
    chosen = ""

    def read(self, incoming: Incoming) -> Awaitable[None]:
        """Take a GET or HEAD."""
        if incoming.ahead is None:
            return run_app(Read(incoming), incoming.scope)
        exchange = ReadAhead(incoming, incoming.ahead)
        return run_app(exchange, incoming.scope, exchange.run)

    def read_by_policy(self, incoming: Incoming) -> Awaitable[None]:
        """Take a safe request to which headers have nothing to say."""
        return run_app(Read(incoming), incoming.scope)

    def mutation(self, incoming: Incoming, before: Exchange | None = None) -> Mutation:
        """Make what becomes of an unsafe request."""
        return Mutation(incoming, before)

    def keys_of(self, asks: Asks) -> tuple[bytes, ...]:
        """The keys under which an answer by headers may be stored."""
        return ()

    def usable(self, asks: Asks, stored: Any) -> Any:
        """The stored response: its key has the policy, so that it stands in for what answers now."""
        return stored


class ByHeaders(ByPolicy):
    """Responses are stored by what their headers say (RFC 9111); a route with `cached()` keeps its policy."""

    by_headers = True

    def __init__(self, options: HeaderOptions) -> None:
        self._options = options
        self.chosen = "" if options == HeaderOptions() else repr(options)
        self._rules = SearchRules()

    async def read(self, incoming: Incoming) -> None:
        """Take a GET or HEAD."""
        lookup = HeaderLookup(incoming, self._options, self._rules)
        lookup.exchange.is_answered_here()
        try:
            if await lookup.run():
                return
        finally:
            lookup.exchange.is_answered()
        # The lookup may have heard the beginning of the content.
        await self.read_by_policy(incoming._replace(receive=lookup.exchange.receive))

    def mutation(self, incoming: Incoming, before: Exchange | None = None) -> Mutation:
        """Make what becomes of an unsafe request."""
        return HeaderMutation(incoming, self._options, self._rules, before)

    def keys_of(self, asks: Asks) -> tuple[bytes, ...]:
        """The keys under which an answer by headers may be stored."""
        # Its keys are made of what came alone.
        return self._resource(asks).keys

    def usable(self, asks: Asks, stored: Any) -> Any:
        """The stored response, if it may still stand in for what answers now; None if not."""
        return self._resource(asks).usable(stored)

    def _resource(self, asks: Asks) -> Resource:
        return Resource(cast("Exchange", asks), self._options, self._rules)


MODES: tuple[type[ByPolicy | ByHeaders], ...] = (ByPolicy, ByHeaders)
"""Every mode."""


def mode_of(honour_headers: bool | HeaderOptions) -> Mode:  # noqa: FBT001  # the option as users give it
    """The mode that `honour_headers` asks for; raises `ConfigurationError` for anything else."""
    if not isinstance(honour_headers, bool | HeaderOptions):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"honour_headers is True, False or HeaderOptions, not {honour_headers!r}.")
    if honour_headers is False:
        return ByPolicy()
    return ByHeaders(HeaderOptions() if honour_headers is True else honour_headers)
