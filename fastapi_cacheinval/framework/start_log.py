"""What is said at the start, where people look: in the server's own log, unless the app has set one up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["say_at_start", "unshared_partitions"]

logger = logging.getLogger("fastapi_cacheinval.middleware")

# uvicorn's, which its workers under gunicorn use as well.
_SERVER = "uvicorn.error"


def say_at_start(lines: Iterable[str]) -> None:
    """Say lines at INFO: through the log of the app where it shows them, else through uvicorn's."""
    server = logging.getLogger(_SERVER)
    ours = logger.isEnabledFor(logging.INFO) and logger.hasHandlers()
    for line in lines:
        (logger if ours or not server.hasHandlers() else server).info("fastapi_cacheinval: %s", line)


def unshared_partitions(plans: Sequence[RoutePlan]) -> str | None:
    """The warning about partitions whose keys no other replica composes; None where no route has any."""
    paths = [plan.path for plan in plans if plan.policy is not None and plan.policy.partition]
    if not paths:
        return None
    return (
        f"Replicas do not share the partitioned pages of {', '.join(paths[:3])}{' and others' if paths[3:] else ''}: "
        "each has made a secret of its own. Give all the same one: "
        'HTTPCache.from_url(..., secret=os.environ["CACHEINVAL_SECRET"]), at least 16 characters.'
    )
