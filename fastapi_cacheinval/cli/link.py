"""Redis as a command reaches it: bounded calls, and one error with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi_cacheinval.bus.call import LogKeys, log_keys
from fastapi_cacheinval.bus.fleet import RedisFleet
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.target import Target, shown
from fastapi_cacheinval.connections.client import Away, Client
from fastapi_cacheinval.connections.urls import by_url
from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.errors import ConfigurationError, TierUnavailable

__all__ = ["Link", "fleet_in_use", "linked", "run", "unreachable"]

_Result = TypeVar("_Result")

# A string of a reply that is longer is not read: an app may store larger bodies than the default.
_MOST_BYTES = 64 * 1024 * 1024

_MAY_NOT = (
    "The user of the URL may not do that: see 'What Redis has to allow' on the documentation's page of the command."
)
_CURES = (
    (
        "Authentication required",
        "It needs a password: redis://:PASSWORD@host:6379/0, or redis://USER:PASSWORD@host:6379/0.",
    ),
    ("WRONGPASS", "The user or the password in the URL is wrong."),
    ("invalid username-password", "The user or the password in the URL is wrong."),
    ("NOPERM", _MAY_NOT),
    ("no permissions", _MAY_NOT),
    ("no answer in time", "Look at the address and the firewall; --timeout waits longer."),
    ("onnect", "Look at the host and the port in the URL, and whether the server runs."),
    ("DB index", "The number of the database, at the end of the URL, is out of range."),
    ("SSL", "rediss:// is for servers with TLS, redis:// for those without."),
)


def unreachable(server: str, reason: str) -> CliError:
    """The error for a server that cannot be used, and what to do; `server` is its name in a message."""
    cure = next((f" {text}" for sign, text in _CURES if sign in reason), "")
    if "rediss://" in server and "no answer in time" in reason:
        cure += " A server without TLS does not answer rediss:// either."
    return CliError(Exit.REDIS, f"{server} cannot be used: {reason.rstrip('.')}.{cure}")


class Link:
    """One client of the server that has the log. Every call raises `CliError`, but for `client`'s own."""

    def __init__(self, target: Target, client: Client) -> None:
        self.target = target
        self.client = client
        self.keys: LogKeys = log_keys(target.prefix)
        self._fleet = RedisFleet(client, target.namespace, target.prefix)

    async def fleet(self) -> Fleet:
        """The replicas now."""
        try:
            return await self._fleet.read()
        except TierUnavailable as error:
            raise unreachable(self.target.server, error.reason) from error

    async def used(self) -> Fleet:
        """The replicas now, of a namespace that is in use; raises `CliError` for another."""
        fleet = await self.fleet()
        if fleet.log is None:
            raise CliError(
                Exit.NO,
                f"Nobody uses the namespace {self.target.namespace!r} at {shown(self.target.url)}: it has no purge "
                "log. Give the app's own: --namespace, and the number of its database at the end of --url.",
            )
        return fleet

    async def ask(self, *parts: Any) -> Any:
        """A command that names no key."""
        return await self._answered(self.client.about(self.keys.state, *parts))

    async def command(self, *parts: Any) -> Any:
        """A command about one key."""
        return await self._answered(self.client.command(*parts))

    async def _answered(self, asked: Awaitable[Any]) -> Any:
        try:
            return await asked
        except Away as away:
            raise unreachable(self.target.server, away.reason) from away


@asynccontextmanager
async def linked(target: Target) -> AsyncGenerator[Link]:
    """A link for a block; raises `CliError` for a URL that names no Redis."""
    try:
        client = by_url(target.url, target.timeout, _MOST_BYTES)()
    except ConfigurationError as error:
        told = str(error).replace("HTTPCache.from_url", "--url")
        raise CliError(Exit.USAGE, told) from error
    try:
        yield Link(target, client)
    finally:
        await client.close()


async def fleet_in_use(target: Target) -> Fleet:
    """The replicas of a namespace that is in use; raises `CliError` for another."""
    async with linked(target) as link:
        return await link.used()


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command's work on an event loop of its own; Ctrl-C ends it with the code of an interruption."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None
