"""The leak check: what is stored is handed to nobody to whom the app would say something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi_cacheinval.core.tags import shown_tags
from fastapi_cacheinval.framework.asking_again import Heard
from fastapi_cacheinval.testing.searches.asking import Answer, Asking, InStore, answer_of
from fastapi_cacheinval.testing.searches.callers import Caller
from fastapi_cacheinval.testing.searches.findings import Finding

__all__ = ["leaks", "outdated"]

_REFUSED = (401, 403)
_PARTIAL = (206, 304, 416)


async def leaks(asking: Asking, others: Iterable[Caller], *, own_hit: bool, quiet: Callable[[], bool]) -> list[Finding]:
    """Faults of what is stored for a request, as its own caller and as all others see it.

    Its own caller asks only where it was answered with what was stored. A response that is stale by its policy is
    compared with nothing. `quiet` says whether no mutation has come in between: what differs then is of no use.
    """
    found: list[Finding] = []
    asker = asking.asked.caller
    everyone = [*others]
    for caller in ([asker] if own_hit else []) + everyone:
        stored = await asking.stored(caller)
        if stored is None or stored.stale:
            continue
        fault = await _fault(asking, caller, stored, [asker, *everyone], quiet)
        if fault is not None:
            found.append(fault)
    return found


async def outdated(asking: Asking, handed: Heard, *, quiet: Callable[[], bool]) -> Finding | None:
    """The fault that a request's own caller was handed something else than the app says, stale by its policy or not.

    A part of a page, and the word that it has not changed, are compared with nothing.
    """
    if handed.status in _PARTIAL or not handed.complete:
        return None
    caller, answer = asking.asked.caller, answer_of(handed)
    said = await asking.instead(caller, answer)
    if said is None or not quiet():
        return None
    stored = await asking.stored(caller)
    return _outdated(asking, caller, answer, said, () if stored is None else stored.stored.tags)


async def _fault(
    asking: Asking, caller: Caller, stored: InStore, known: Iterable[Caller], quiet: Callable[[], bool]
) -> Finding | None:
    said = await asking.instead(caller, stored.answer)
    if said is None:
        return None
    made_for = None
    for each in known:
        theirs = None if each is caller else await asking.app(each)
        if theirs is not None and theirs.says_the_same(stored.answer):
            made_for = each
            break
    if not quiet() or not asking.usable(stored.stored):
        return None
    if made_for is not None:
        return _leak(asking, caller, made_for, stored.answer, said)
    return _outdated(asking, caller, stored.answer, said, stored.stored.tags)


def _leak(asking: Asking, caller: Caller, made_for: Caller, handed: Answer, said: Answer) -> Finding:
    route = asking.plan.get_label
    line = _line(asking, said)
    text = (
        f"{asking.asked.target} hands to one caller what was made for another.\n"
        f"  made for:          {made_for}\n"
        f"  handed to:         {caller}\n"
        f"  with the cache:    {handed}\n"
        f"  without the cache: {said}\n"
        f"  write, at {route} ({asking.plan.endpoint}): {line}"
    )
    return Finding("leak", (route,), text)


def _line(asking: Asking, said: Answer) -> str:
    """What to write, by the route's signature where that says it."""
    policy = asking.plan.policy
    words = ("shared", "request_is_shared")
    taken = [f"{word}=True" for word in words if policy is not None and getattr(policy, word)]
    line = asking.line
    if not line and said.status in _REFUSED:
        line = "Name the dependency that refuses the caller: cached(..., guarded_by=...)."
    if not line:
        line = "Take what tells callers apart as a dependency of the route, and name it: cached(..., partition_by=...)."
    return " ".join([*(f"{word} is not so: take it out." for word in taken), line])


def _outdated(asking: Asking, caller: Caller, handed: Answer, said: Answer, stored: tuple[str, ...]) -> Finding:
    route = asking.plan.get_label
    tags = ", ".join(map(repr, shown_tags(stored)))
    cure = f"give {route} a tag, cached(..., tags=[...]), and purge it where what it says changes: invalidates(...)."
    if tags:
        cure = (
            f"what changed it has to purge {tags}, by invalidates(...) at the mutation or await cache.invalidate(...); "
            f"or give {route} a tag that is purged: cached(..., tags=[...])."
        )
    text = (
        f"{asking.asked.target} hands out what the app no longer says.\n"
        f"  caller:            {caller}\n"
        f"  with the cache:    {handed}\n"
        f"  without the cache: {said}\n"
        f"  write: {cure}"
    )
    return Finding("outdated", (route, asking.asked.target), text)
