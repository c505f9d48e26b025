"""Work in a process that is forked from that of the tests, as it stands."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["in_child"]


def in_child(work: Callable[[], Any]) -> None:
    """Run a function in a fork of this process; it fails with the child's error."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, which is the point
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent is told
            os.write(write, repr(error).encode()[:4000])
            os._exit(1)
    os.close(write)
    said = b""
    while chunk := os.read(read, 4000):
        said += chunk
    os.close(read)
    _, status = os.waitpid(pid, 0)
    assert status == 0, said.decode()
