"""Asking before much is done, and showing that something takes long; both of a person alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator

import click

from fastapi_cacheinval.cli.console import errors
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.safe import plain

__all__ = ["agreed", "busy"]


def agreed(question: str, *, yes: bool) -> None:
    """Go on only if the caller has said `--yes`, or says so now; raises `CliError` otherwise."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(Exit.USAGE, f"{question} Nobody can be asked here: add --yes.")
    try:
        agreed_to = click.confirm(plain(question), err=True)
    except click.Abort as abort:
        click.echo(err=True)
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise SystemExit(Exit.INTERRUPTED) from None
        agreed_to = False
    if not agreed_to:
        raise CliError(Exit.NO, "Nothing was purged.")


@contextlib.contextmanager
def busy(what: str) -> Generator[None]:
    """Show on a terminal that this is under way."""
    console = errors()
    if not console.is_terminal:
        yield
        return
    with console.status(plain(what)):
        yield
