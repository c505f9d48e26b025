"""A MariaDB server of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.waiting import until

__all__ = ["mariadb"]

# Nothing is flushed to disk, which only the end of the machine would show.
_SETTINGS = ("--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M")


def _program(name: str) -> str:
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    assert program, f"there is no {name}: run these tests with `make test-system`"
    return program


@contextlib.contextmanager
def mariadb() -> Generator[str]:
    """The URL of the database `test` of a new server, ended and deleted with the block."""
    with tempfile.TemporaryDirectory(prefix="mariadb-") as directory:
        data, port = Path(directory) / "data", free_port()
        # It runs as root where it is told to.
        own = ["--no-defaults", f"--datadir={data}", *([] if os.geteuid() else ["--user=root"])]
        made = subprocess.run(
            [_program("mariadb-install-db"), *own, "--auth-root-authentication-method=normal", "--skip-name-resolve"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        socket_file, pid = f"--socket={directory}/socket", f"--pid-file={directory}/pid"
        command = [_program("mariadbd"), *own, *_SETTINGS, f"--port={port}", socket_file, pid]
        child = Child("mariadb", command, Path(directory))

        def ready() -> bool:
            assert child.alive, child.tail(50)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connected:
                # It greets whoever comes once it is ready.
                return bool(connected.recv(1))
            return False

        try:
            until(ready, "an answer from MariaDB", detail=child.tail)
            yield f"mysql+pymysql://root@127.0.0.1:{port}/test"
        finally:
            child.kill()
