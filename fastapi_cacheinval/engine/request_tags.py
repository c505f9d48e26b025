"""Collecting tags, and what has been changed, while a request is answered, from anywhere in it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from itertools import count
from typing import Protocol

from fastapi_cacheinval.core.checks import Wait, waits
from fastapi_cacheinval.core.tag_limits import MOST_TAG_BYTES, MOST_TAGS, bounded_tags, cost_of
from fastapi_cacheinval.core.tags import ALL, normalise_tag, not_a_tag, render_value
from fastapi_cacheinval.engine.forks import forget_after_fork

__all__ = ["Answering", "Changes", "HasRequestTags", "RequestTags", "add_tags", "is_answering", "purge_with_request"]


class RequestTags:
    """The tags of one request, in normal form and first order; any thread may add.

    More than `core.tag_limits` allows become the one tag of everything. Text without anything left of it is dropped
    and told to `dropped`, never raised about. `count` is how often something was added.
    """

    __slots__ = ("_dropped", "_left", "_numbers", "_tags", "count")

    def __init__(self, dropped: Callable[[], None]) -> None:
        self._tags: dict[str, int] = {}
        self._left = MOST_TAG_BYTES
        self._dropped = dropped
        self._numbers = count(1)
        self.count = 0

    def add(self, *tags: str) -> None:
        """Add tags; raises `ConfigurationError` for a collection in the place of one."""
        for each in tags:
            if isinstance(each, list | tuple | set | frozenset | dict):
                raise not_a_tag(each)
            text = render_value(each) or ""
            if text not in self._tags:
                self._left -= cost_of(text)
                if self._left < 0 or len(self._tags) >= MOST_TAGS:
                    self.take((ALL,))
                    # What else there is costs nothing.
                    return
            tag = normalise_tag(text)
            if tag is None:
                self._dropped()
            else:
                self.count = self._tags[tag] = next(self._numbers)

    def take(self, tags: tuple[str, ...]) -> None:
        """Add tags in normal form, or the one of everything."""
        for tag in tags:
            self.count = self._tags[tag] = next(self._numbers)

    def snapshot(self) -> tuple[str, ...]:
        """What was added up to now."""
        return (ALL,) if ALL in self._tags else tuple(self._tags)

    def since(self, count: int) -> frozenset[str]:
        """What was added, or added once more, since the count stood there."""
        return frozenset(tag for tag, number in tuple(self._tags.items()) if number > count)


class Changes:
    """Tags of what an unsafe request has committed, in normal form; any thread may add, until it is closed.

    `cache` is the one that the request's purge is made by.
    """

    __slots__ = ("_lock", "_open", "_tags", "cache", "waits")

    def __init__(self, cache: object) -> None:
        self.cache = cache
        self._tags: dict[str, None] = {}
        self._open = True
        self._lock = threading.Lock()
        # Whether the answer waits until every replica has applied the purge.
        self.waits = False

    def add(self, tags: tuple[str, ...], *, for_all: bool = False) -> bool:
        """Have tags purged with the request's own; False where that purge is made."""
        with self._lock:
            if self._open:
                self.waits = self.waits or for_all
                self._tags.update(dict.fromkeys(tags))
                if len(self._tags) > MOST_TAGS:
                    self._tags = {ALL: None}
            return self._open

    def snapshot(self) -> tuple[str, ...]:
        """What was added up to now."""
        with self._lock:
            return tuple(self._tags)

    def close(self) -> None:
        """Take nothing more: whoever comes later purges by himself."""
        with self._lock:
            self._open = False


class HasRequestTags(Protocol):
    """What is answering a request, and has its tags."""

    @property
    def changes(self) -> Changes | None:
        """Where the tags go of what the request commits; None where it purges nothing."""
        ...

    def request_tags(self) -> RequestTags:
        """The tags of the request, made when first asked for."""
        ...


class Answering:
    """A request that is being answered, as its context sees it, from now until `end`.

    A context outlives its request: the timer of a kept-alive connection, and every task that the request has begun,
    has a copy. So what is in it is this, which lets go of the request and all that hangs on it, its body included.
    """

    __slots__ = ("_token", "request")

    def __init__(self, request: HasRequestTags) -> None:
        self.request: HasRequestTags | None = request
        self._token: Token[Answering | None] | None = _current.set(self)

    def end(self) -> None:
        """The request is over; harmless twice."""
        token, self._token, self.request = self._token, None, None
        if token is not None:
            # Where a layer inside ours runs the app in a task, the context has gone with it.
            with contextlib.suppress(ValueError):
                _current.reset(token)


_current: ContextVar[Answering | None] = ContextVar("fastapi_cacheinval_tags", default=None)


class _AtFork:
    """A process that is forked from a handler has its context: the request is answered by the parent alone."""

    def forked(self) -> object:
        answering = _current.get()
        _current.set(None)
        return answering


_at_fork = _AtFork()
forget_after_fork(_at_fork)


def _request_at_hand() -> HasRequestTags | None:
    answering = _current.get()
    return None if answering is None else answering.request


def is_answering() -> bool:
    """Whether this context answers a request that has been looked up and goes forward, or an unsafe one."""
    return _request_at_hand() is not None


def add_tags(*tags: str) -> bool:
    """Add tags to the request at hand, for code that has no `CacheTags`: an ORM hook, a helper, a thread.

    On a safe method they tag the stored response, on an unsafe one they are purged. False where no
    request is being answered in this context: then nothing is collected.
    """
    request = _request_at_hand()
    if request is None:
        return False
    request.request_tags().add(*tags)
    return True


def purge_with_request(*tags: str, cache: object = None, wait: Wait = None) -> bool:
    """Have tags purged by the unsafe request at hand, together with what its route declares.

    For what has been committed already: they are purged whatever the request is answered with, before the answer goes.
    False where no unsafe request is being answered in this context, or its answer has gone, as it has for background
    tasks and streams, or where the purge would be another cache's than `cache`: then the caller purges them.
    `wait="all"` has the answer wait until every replica has applied the purge.
    """
    for_all = waits(wait)
    request = _request_at_hand()
    changes = None if request is None else request.changes
    if changes is None or cache not in (None, changes.cache):
        return False
    return changes.add(bounded_tags(tags), for_all=for_all)
