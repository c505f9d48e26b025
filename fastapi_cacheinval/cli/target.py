"""Which Redis and which namespace a command is about, as options and environment variables say it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.engine.tiers import key_prefix

__all__ = ["Target", "json_option", "named_target_options", "shown", "target_options"]

_HOST = r"(?:\[[0-9A-Fa-f:.%]*\]|[^][:@/?#,]*)(?::\d*)?"
_PLACE = re.compile(
    rf"(?:[^/?#]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?P<path>(?:/[^?#@]*)?)(?P<more>(?:[?#].*)?)", re.DOTALL
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """A Redis URL, a namespace, and for how many seconds one call is waited for."""

    url: str
    namespace: str
    timeout: float

    @property
    def prefix(self) -> str:
        """What begins the keys of the log."""
        return key_prefix(self.namespace, "")

    @property
    def server(self) -> str:
        """What messages call the server."""
        return f"Redis at {shown(self.url)}"

    def __str__(self) -> str:
        return f"{shown(self.url)}, namespace {self.namespace}"


def shown(url: str) -> str:
    """A URL without its user, its password and its options; without its place where that may be a password's."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…"
    found = _PLACE.fullmatch(rest)
    # Where a password is not percent-encoded nobody can tell where it ends.
    place = "…" if found is None or "@" in found["more"] else f"{found['hosts']}{found['path']}"
    return f"{scheme}://{place}"


def target_options(command: _Command) -> _Command:
    """Give a command `--url`, `--namespace` and `--timeout`; it gets them as `target`."""
    return _with_options(command, checked_target)


def named_target_options(command: _Command) -> _Command:
    """The same for a command that may need none of them; it gets a function that gives the target, as `target`."""

    def later(url: str | None, namespace: str, timeout: float) -> Callable[[], Target]:
        return functools.partial(checked_target, url, namespace, timeout)

    return _with_options(command, later)


def _with_options(command: _Command, given: Callable[[str | None, str, float], Any]) -> _Command:

    @click.option("--url", envvar="CACHEINVAL_URL", metavar="URL", help="The app's Redis. [env: CACHEINVAL_URL]")
    @click.option(
        "--namespace",
        envvar="CACHEINVAL_NAMESPACE",
        default="cacheinval",
        metavar="NAME",
        help="The app's namespace. [default: cacheinval; env: CACHEINVAL_NAMESPACE]",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(0.05, 600),
        default=3.0,
        metavar="SECONDS",
        help="How long to wait for one answer of Redis. [default: 3]",
    )
    @functools.wraps(command)
    def with_target(url: str | None, namespace: str, timeout: float, **more: Any) -> Any:
        return command(target=given(url, namespace, timeout), **more)

    return with_target  # type: ignore[return-value]  # click replaces it by a command anyway


def checked_target(url: str | None, namespace: str, timeout: float) -> Target:
    """Raises `CliError` where no Redis is named."""
    if not url:
        raise CliError(
            Exit.USAGE,
            "No Redis is named. Give the URL that the app uses: --url redis://host:6379/0, or CACHEINVAL_URL.",
        )
    if url.partition("://")[0] == "memory":
        raise CliError(
            Exit.USAGE,
            "memory:// keeps everything in the app's own process: nothing can be seen from outside. "
            "Use cache.statistics() there, or give replicas a Redis.",
        )
    if not namespace:
        raise CliError(Exit.USAGE, "The namespace must not be empty.")
    return Target(url.strip(), namespace, timeout)


json_option = click.option("--json", "as_json_", is_flag=True, help="Print JSON for programs.")
