"""From a transaction that is committed to its purge, wherever it was committed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Literal

from sqlalchemy.util.concurrency import await_only, in_greenlet

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered, ReplicasUnknown, purge_with_request
from fastapi_cacheinval.contrib.sqlalchemy.errors import CommitRefused, CommittedNotPurged

__all__ = ["purge", "refuse_without_log"]

logger = logging.getLogger("fastapi_cacheinval.contrib.sqlalchemy")

# More tags than one request names one by one: together with others they would become everything.
_MOST_JOINING = 8_000


def purge(
    cache: HTTPCache,
    tags: tuple[str, ...],
    *,
    everything: bool = False,
    kept: bool,
    torn: bool = False,
    wait: Literal["all"] | None = None,
) -> None:
    """Purge what is committed: with the request at hand, else at once; `kept` where an outbox has it too.

    Very many tags do not join the request's own, which would make them everything.

    `everything` is for what nobody knows the tags of: no request joins that, and no outbox has it.
    `torn` is for a commit that was cut off: whoever waited for it may have gone, so nobody waits for the purge, and
    this replica obeys it from now on.

    What cannot be delivered is logged where it is queued or kept, else raised as `CommittedNotPurged`.
    """
    if everything:
        logger.warning("a statement changed rows of which nobody knows the tags: everything is purged")
    joins = len(tags) <= _MOST_JOINING and purge_with_request(*tags, cache=cache, wait=wait)
    if joins and not everything:
        return
    try:
        if torn and _on_a_loop() and cache.running:
            cache.invalidate_soon(*tags, everything=everything)
        else:
            _at_once(cache, tags, everything=everything, wait=wait)
    except ReplicasUnknown as error:
        logger.warning("%s", error)
    except TimeoutError:
        logger.warning("a purge of %d tag(s) after a commit takes long; it goes on", len(tags))
    except PurgeNotDelivered as error:
        if not error.queued and (everything or not kept):
            raise CommittedNotPurged(error.tags, error.reason, cure=error.cure) from error
        logger.warning("a purge of %d tag(s) after a commit is %s", len(tags), _instead(error.queued))


def _instead(queued: bool) -> str:  # noqa: FBT001
    return "queued: the log is out of reach" if queued else "left to the outbox: the log is out of reach"


def _at_once(
    cache: HTTPCache, tags: tuple[str, ...], *, everything: bool = False, wait: Literal["all"] | None = None
) -> None:
    """In the place of an `await` in SQLAlchemy's greenlets; else by waiting, but never for the loop that waits."""
    how = {"everything": True} if everything else {}
    if in_greenlet():
        await_only(cache.clear(wait=wait) if everything else cache.invalidate(*tags, wait=wait))
    elif not _on_a_loop():
        cache.invalidate_sync(*tags, **how, wait=wait)
    elif cache.running:
        cache.invalidate_soon(*tags, **how)
    else:
        _aside(lambda: cache.invalidate_sync(*tags, **how, wait=wait))


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _aside(work: Callable[[], object]) -> None:
    """Wait for a thread: the cache lives on another loop or on none, so it does not wait for this one."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run, name="cacheinval purge")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def refuse_without_log(cache: HTTPCache, tags: tuple[str, ...]) -> None:
    """Raise `CommitRefused` where `mutations_when_disconnected="refuse"` and the log is out of reach.

    A cache that has not been started finds out by writing: the same tags, which are purged again after the commit.
    """
    if cache.settings.mutations_when_disconnected != "refuse" or cache.statistics().connected:
        return
    if any(loop.is_running() for loop in cache.loops):
        raise CommitRefused(tags)
    try:
        _at_once(cache, tags)
    except PurgeNotDelivered as error:
        raise CommitRefused(tags) from error
