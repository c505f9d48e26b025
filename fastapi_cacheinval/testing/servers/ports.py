"""Ports to listen on that stay free while their server is restarted."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port", "in_use", "listens"]

# Below what the kernel hands out for outgoing connections, so that none of these takes a port while its server is down.
_FROM, _TO = 12_000, 32_000
_chance = random.SystemRandom()


def in_use(port: int) -> str | None:
    """None where nobody listens on the port of 127.0.0.1, else why it cannot be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or "it cannot be used"
    return None


def listens(port: int) -> bool:
    """Whether a server accepts connections on the port of 127.0.0.1; it gets no request."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on; somebody else may still be quicker."""
    while True:
        port = _chance.randrange(_FROM, _TO)
        if not in_use(port):
            return port
