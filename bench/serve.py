"""One of the compared apps under uvicorn: `python -m bench.serve NAME SIZE [PROTOCOL]` prints its port and serves."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from bench.apps import APPS
from bench.expiring import MODES, expiring_app

__all__ = ["main"]


def _app(name: str, size: int) -> ASGIApp:
    if name in MODES:
        return expiring_app(name, size)
    make: Callable[[int], ASGIApp] = APPS[name]
    return make(size)


def main() -> None:
    """Serve on a free port of the loopback interface."""
    app = _app(sys.argv[1], int(sys.argv[2]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    # With uvloop and httptools where they are installed.
    http = sys.argv[3] if len(sys.argv) > 3 else "auto"
    config = uvicorn.Config(app, loop="auto", http=http, ws="none", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
