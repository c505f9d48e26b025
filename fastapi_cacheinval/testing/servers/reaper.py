"""A process that outlives this one just long enough to end what this one had started."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading

__all__ = ["forget", "watch"]

_lock = threading.Lock()
_reaper: subprocess.Popen[str] | None = None
_owner = 0


def _tell(line: str) -> None:
    global _reaper, _owner  # noqa: PLW0603  # one per process that starts children
    with _lock:
        if _reaper is None or _owner != os.getpid():
            # A session of its own, so that Ctrl-C in the terminal does not reach it.
            _reaper = subprocess.Popen(
                [sys.executable, "-S", "-E", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
            _owner = os.getpid()
            atexit.register(_dismiss, _reaper)
        assert _reaper.stdin is not None
        print(line, file=_reaper.stdin, flush=True)


def _dismiss(reaper: subprocess.Popen[str]) -> None:
    if _owner == os.getpid():
        reaper.communicate()


def watch(pid: int) -> None:
    """Have this child and its process group killed when this process is gone, however it went."""
    _tell(f"+{pid}")


def forget(pid: int) -> None:
    """This child has been waited for; its number may become somebody else's."""
    _tell(f"-{pid}")


def main() -> None:
    """Read who lives until the other end is gone, then kill who is left."""
    living: set[int] = set()
    for line in sys.stdin:
        (living.add if line[0] == "+" else living.discard)(int(line[1:]))
    for pid in living:
        with contextlib.suppress(ProcessLookupError):  # the group of that process
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
