"""Ports to listen on, as the package has them."""

from fastapi_cacheinval.testing.servers.ports import free_port, listens

__all__ = ["free_port", "listens"]
