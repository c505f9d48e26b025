"""Work in a process that is forked from that of the tests, as it stands, and in a thread of its own there."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["in_child", "in_thread"]


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


def in_thread(work: Callable[[], Any]) -> Any:
    """What a function gives, or raises, in a thread of its own: a fork of a loop's thread has a loop that seems to run."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    if failed:
        raise failed[0]
    return found[0]
