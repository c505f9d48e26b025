"""How a command ends: the exit codes that scripts read, and the one error that people read."""

from __future__ import annotations

from enum import IntEnum
from typing import IO, Any

import click

from fastapi_cacheinval.cli.safe import plain

__all__ = ["CliError", "Exit"]


class Exit(IntEnum):
    """The exit codes. `USAGE` is click's own."""

    OK = 0
    NO = 1
    """Something is wrong (`doctor`, `audit --strict`), there is nothing of that name, or you said no."""
    USAGE = 2
    REDIS = 3
    """Redis is out of reach, or refuses."""
    APP = 4
    """The app cannot be imported, or does not start."""
    UNCONFIRMED = 5
    """A purge is written, and it is not known whether every replica has applied it."""
    INTERRUPTED = 130


class CliError(click.ClickException):
    """What stops a command, with what to do; shown on standard error without a traceback."""

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        # click reads it of the error that it was given.
        self.__dict__["exit_code"] = int(exit_code)

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it for a person, with nothing in it that a terminal would obey."""
        for line in self.message.splitlines():
            click.echo(plain(line), err=True)
