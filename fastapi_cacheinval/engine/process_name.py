"""The name of this process for people: who wrote a purge, and which replica a summary is of."""

from __future__ import annotations

import os
import socket

__all__ = ["host_name", "process_name"]

_LONGEST_HOST = 64


def host_name() -> str:
    """The machine or container, in at most 64 printable ASCII characters."""
    name = "".join(character for character in socket.gethostname() if character.isascii() and character.isprintable())
    return name[:_LONGEST_HOST] or "unknown"


def process_name() -> str:
    """The host and the process id now, as `web-1/4242`: a process that was forked has one of its own."""
    return f"{host_name()}/{os.getpid()}"
