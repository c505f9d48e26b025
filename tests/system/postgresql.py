"""A PostgreSQL cluster of its own, on a free port of 127.0.0.1, with the faults that a test can put it to."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.waiting import until

__all__ = ["PostgreSQL", "postgresql"]

# Nothing is flushed to disk, which only the end of the machine would show; what is committed outlives the server.
_SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", "max_prepared_transactions=4")
_NOT_ROOT = "nobody"


def _program(name: str) -> str:
    """One of PostgreSQL's programs, of the latest version where Debian has several."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"there is no {name}: run these tests with `make test-system`"
    return program


def _as_somebody() -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid():
        return []
    user = pwd.getpwnam(_NOT_ROOT)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


class PostgreSQL:
    """A running cluster in which everybody on this machine is trusted; make one with `postgresql()`."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._data = directory / "data"
        self._databases = 0
        if not os.geteuid():
            shutil.chown(directory, _NOT_ROOT)
        self._run(
            *_as_somebody(), _program("initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        self.start()

    def url(self, database: str = "postgres", driver: str = "asyncpg") -> str:
        """What SQLAlchemy takes."""
        return f"postgresql+{driver}://postgres@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The name of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self.psql(f"CREATE DATABASE {name}")
        return name

    def psql(self, script: str, database: str = "postgres", user: str = "postgres") -> str:
        """What the real `psql` prints for a script: rows alone, `|` between columns; fails where one statement does."""
        command = [
            "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1",
            "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", database,
        ]  # fmt: skip
        return self._run(*command, given=script).strip()

    # -- faults ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, on the same port and with what it had."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        self._child = Child(
            "postgresql",
            [
                *_as_somebody(), _program("postgres"), "-D", str(self._data), "-k", str(self._directory),
                "-p", str(self.port), *settings,
            ],
            self._directory,
        )  # fmt: skip
        until(self._ready, "an answer from PostgreSQL", detail=self._child.tail)

    def stop(self) -> None:
        """Shut it down at once: all connections end, what is committed is kept."""
        if self._child.alive:
            os.kill(self._child.pid, signal.SIGQUIT)
            self._child.wait()

    def close(self) -> None:
        """End it for good."""
        self.stop()

    def _ready(self) -> bool:
        assert self._child.alive, self._child.tail(50)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            return subprocess.run(command, check=False, timeout=10).returncode == 0
        return False

    def _run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=60, cwd=self._directory
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


@contextlib.contextmanager
def postgresql() -> Generator[PostgreSQL]:
    """A new cluster, ended and deleted with the block."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as directory:
        server = PostgreSQL(Path(directory))
        try:
            yield server
        finally:
            server.close()
