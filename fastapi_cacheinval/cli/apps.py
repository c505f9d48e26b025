"""Importing the app that a command is about, as a server does: `module:attribute`, from the current directory."""

from __future__ import annotations

import contextlib
import importlib
import sys
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fastapi_cacheinval.cli.exits import CliError, Exit

__all__ = ["imported"]

_LONGEST = 2_000


def imported(name: str, *, factory: bool, directory: str) -> Any:
    """The app of that name; raises `CliError` with what is wrong, and where, for any that cannot be had.

    What the app prints while it is imported goes to standard error: the output is the command's own.
    """
    module_name, colon, attributes = name.partition(":")
    if not module_name or not colon or not attributes:
        raise CliError(
            Exit.USAGE, f"{name!r} is no import string. Write module:attribute, as the server: shop.main:app."
        )
    sys.path.insert(0, str(Path(directory).resolve()))
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        stack.callback(sys.stderr.flush)
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise CliError(
                    Exit.APP,
                    f"There is no module {module_name!r} in {Path(directory).resolve()} or among what is installed. "
                    "Run the command where you start the server, or give --app-dir.",
                ) from None
            raise _failed(name, "cannot be imported", error) from error
        except (Exception, SystemExit) as error:
            raise _failed(name, "cannot be imported", error) from error
        names: list[str] = [each for each in dir(found) if not each.startswith("_")]
        for attribute in attributes.split("."):
            if not hasattr(found, attribute):
                near = get_close_matches(attribute, names, 3)
                meant = f" Near: {', '.join(near)}." if near else ""
                raise CliError(Exit.APP, f"The module {module_name!r} has no {attributes!r}.{meant}")
            found = getattr(found, attribute)
        if not factory:
            return found
        try:
            return found()
        except (Exception, SystemExit) as error:
            raise _failed(name, "cannot be made", error) from error


def _failed(name: str, what: str, error: BaseException) -> CliError:
    """What a person needs of a traceback: the error, and the line of their own where it was raised."""
    foreign = ("<", sysconfig.get_path("stdlib"), __file__)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(foreign)
    ]
    where = f"\n  at {own[-1].filename}, line {own[-1].lineno}: {own[-1].line or ''}" if own else ""
    if isinstance(error, SyntaxError):
        where = f"\n  at {error.filename}, line {error.lineno}"
    return CliError(Exit.APP, f"{name} {what}: {type(error).__name__}: {str(error)[:_LONGEST]}{where}")
