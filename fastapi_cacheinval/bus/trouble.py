"""Whatever goes wrong with the log's server, as the one error that a port raises."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from fastapi_cacheinval.connections.client import Away
from fastapi_cacheinval.errors import LogUnavailable, TierUnavailable

__all__ = ["raising"]


@contextmanager
def raising(kind: type[LogUnavailable | TierUnavailable]) -> Generator[None]:
    """A block that asks the server and reads its answers.

    The server may be away, or refuse. It may also hold something else under the log's keys, so that its answers cannot
    be read.
    """
    try:
        yield
    except Away as away:
        raise kind(away.reason) from away
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise kind(f"it answers as no log does ({error})") from error
