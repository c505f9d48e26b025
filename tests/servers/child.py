"""A child process under test, as the package has it."""

from fastapi_cacheinval.testing.servers.child import Child, children

__all__ = ["Child", "children"]
