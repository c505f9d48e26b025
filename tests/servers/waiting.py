"""Waiting for a condition, as the package does it."""

from fastapi_cacheinval.testing.servers.waiting import PATIENCE, until

__all__ = ["PATIENCE", "until"]
