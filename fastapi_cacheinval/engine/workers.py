"""Whether this process is one of several workers that serve the same app."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import FrameType
from typing import Any

__all__ = ["server_of_this_process", "several_workers", "warn_of_other_workers"]

logger = logging.getLogger("fastapi_cacheinval.workers")

# Servers that start workers, and the options by which they are told how many.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "fastapi": ("--workers",),
    "granian": ("--workers",),
    "gunicorn": ("--workers", "-w"),
    "hypercorn": ("--workers", "-w"),
    "uvicorn": ("--workers",),
}
_OBEY_WEB_CONCURRENCY = frozenset({"fastapi", "gunicorn", "uvicorn"})


def several_workers(argv: Sequence[str], environ: Mapping[str, str], server: object = None) -> int:
    """How many workers serve the app, as far as one of them can see; 1 where nothing says more.

    `argv` and `environ` are the process's, `server` is the configuration of the server that started
    it, where that could be found; it knows best. A server that reloads is a developer's: 1.
    """
    if server is not None:
        return 1 if getattr(server, "reload", False) else max(1, _number(getattr(server, "workers", 1)) or 1)
    name = _program(argv)
    if name not in _OPTIONS or "--reload" in argv or (name == "fastapi" and "dev" in argv):
        return 1
    count = _option(argv, _OPTIONS[name])
    if count is None and name == "gunicorn":
        count = _option(environ.get("GUNICORN_CMD_ARGS", "").split(), _OPTIONS[name])
    if count is None and name in _OBEY_WEB_CONCURRENCY:
        count = _number(environ.get("WEB_CONCURRENCY"))
    return max(1, count or 1)


def _program(argv: Sequence[str]) -> str:
    path = PurePath(argv[0] if argv else "")
    # `python -m uvicorn` runs a package.
    return path.parent.name if path.name == "__main__.py" else path.stem


def _option(argv: Sequence[str], names: tuple[str, ...]) -> int | None:
    found = None
    for index, argument in enumerate(argv):
        for name in names:
            if argument == name:
                found = _number(argv[index + 1] if index + 1 < len(argv) else None)
            elif argument.startswith(name):
                found = _number(argument[len(name) :].removeprefix("="))
    return found


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None


def server_of_this_process() -> object:
    """The configuration of the uvicorn that has spawned this process, or of the gunicorn that has forked it."""
    spawned_with: Any = getattr(multiprocessing.current_process(), "_kwargs", None) or {}
    config = spawned_with.get("config")
    if type(config).__module__.partition(".")[0] == "uvicorn":
        return config
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        # A worker of gunicorn still stands on the arbiter that forked it, whose number may be in a file.
        if frame.f_globals.get("__name__") == "gunicorn.arbiter":
            return getattr(frame.f_locals.get("self"), "cfg", None)
        frame = frame.f_back
    return None


def warn_of_other_workers() -> None:
    """Say that purges stay in this process, where other processes serve the same app."""
    count = several_workers(sys.argv, os.environ, server_of_this_process())
    if count > 1:
        logger.warning(
            "HTTPCache() keeps everything in this process, one of %d workers: what one of them purges, "
            "the others go on serving until its lifetime ends. Share it through Redis or Valkey: "
            'HTTPCache.from_url("redis://localhost:6379/0"). Or run one worker.',
            count,
        )
