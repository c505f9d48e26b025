"""Making purges as a replica would, without being one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fastapi_cacheinval.cli.console import note
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.link import fleet_in_use, unreachable
from fastapi_cacheinval.cli.safe import cut
from fastapi_cacheinval.cli.target import Target
from fastapi_cacheinval.connections.urls import by_url
from fastapi_cacheinval.core.checks import Wait
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.core.tags import path_tag
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.errors import PurgeNotDelivered, ReplicasUnknown

__all__ = ["published"]

# The staleness_bound of replicas that were given none.
_BOUND = 2.0
_LONGEST_HINT = 500


async def published(
    target: Target, tags: Sequence[str], paths: Sequence[str], *, soft: bool, everything: bool, wait: Wait
) -> list[Receipt]:
    """One purge of the tags, or of everything, and one of each path, in this order.

    Raises `CliError` where the namespace is not in use, where one could not be written, or where one was and it could
    not be found out whether every replica obeys it.
    """
    fleet = await fleet_in_use(target)
    # Their leases say for how long a replica may have to be waited for.
    bound = fleet.bound or _BOUND
    confirm = fleet.confirm_replicas
    settings = Settings.of({"namespace": target.namespace, "staleness_bound": bound, "confirm_replicas": confirm})
    # Not `HTTPCache`: its calls may take a third of a lease at most, and here a person waits.
    core = Internals(settings, None, by_url(target.url, target.timeout, settings.of_calls[1]), enabled=True)
    hints = _Hints()
    logger = logging.getLogger("fastapi_cacheinval.cache")
    logger.addHandler(hints)
    try:
        purges = [await core.named(tuple(tags), everything=everything)] if tags or everything else []
        purges += [tuple(map(path_tag, core.root_paths.paths_of(path))) for path in paths]
        return [await core.purger.purge(each, soft=soft, wait=wait) for each in purges]
    except PurgeNotDelivered as error:
        raise unreachable(target.server, error.reason) from error
    except ReplicasUnknown as error:
        raise CliError(
            Exit.UNCONFIRMED,
            f"The purge is written (term {error.term}, number {error.seq}), but not every replica is known to obey it: "
            f"{error.reason}. Do not repeat it. A replica that is out of touch stops serving within {bound:g} s.",
        ) from error
    finally:
        logger.removeHandler(hints)


class _Hints(logging.Handler):
    """Shows what the package says of tags that look like patterns or templates."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        # A tag of a file may be of any length.
        note(cut(record.getMessage(), _LONGEST_HINT))
