"""What is known of a request that is not made: by the log alone, or by the app as well."""

from __future__ import annotations

from dataclasses import replace

from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.explained import Known
from fastapi_cacheinval.cli.last_purge import last_purge
from fastapi_cacheinval.cli.link import linked, unreachable
from fastapi_cacheinval.cli.opening import opened
from fastapi_cacheinval.cli.target import Target
from fastapi_cacheinval.connections.client import Away
from fastapi_cacheinval.core.explanation import Explanation
from fastapi_cacheinval.core.root_paths import RootPaths
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["known_of_app", "known_of_log"]

# What explanations say where Redis was not asked.
_AWAY = ("disconnected", "l2-unavailable")
_ALONE = (
    "what is stored, and what was purged: this app keeps both in the memory of its own process (memory://). Name the "
    "Redis of the replicas in the environment, as they have it, or ask cache.explain() in one of them"
)


async def known_of_log(target: Target, asked: str) -> Known:
    """The last purge that named the path; raises `CliError`."""
    if not asked.strip():
        raise CliError(Exit.USAGE, "The URL is empty. Write a path or a URL, such as /products/42.")
    async with linked(target) as link:
        await link.used()
        # Below which root path the app is served only a process that serves it knows: the whole path comes first.
        whole = RootPaths()
        whole.add("")
        for roots in (whole, RootPaths()):
            purge = await last_purge(link, target.namespace, (), roots.paths_of(asked))
            if purge is not None:
                break
        return Known(asked, None, purge)


async def known_of_app(
    app: object, name: str, asked: str, method: str, headers: dict[str, str], base_url: str | None
) -> Known:
    """What the app's routes, its cache and its log say; raises `CliError`."""
    try:
        async with opened(app, name) as (cache, core):
            told = await cache.explain(asked, method, headers, base_url=base_url)
            if told.shared_by is None:
                # No policy: nothing is stored for it that a purge could hit.
                return Known(told.path, told, None, purges_known=False)
            if core.connect is None:
                return Known(told.path, _not_known(told, _ALONE), None, purges_known=False)
            return await _with_log(told, core, asked, name)
    except CacheinvalError as error:
        raise CliError(
            Exit.USAGE, str(error).replace('base_url="', '--base-url "').replace("base_url", "--base-url")
        ) from error


async def _with_log(told: Explanation, core: Internals, asked: str, name: str) -> Known:
    """An explanation and the last purge that hit the page, or why neither is known."""
    assert core.connect is not None
    client, fault, purge = core.connect(), None, None
    core.root_paths.add("")
    try:
        purge = await last_purge(client, core.settings.namespace, told.tags, core.root_paths.paths_of(asked))
    except Away as away:
        fault = unreachable(f"The Redis of {name}", away.reason)
    finally:
        await client.close()
    if fault is None and told.detail in _AWAY:
        fault = unreachable(f"The Redis of {name}", "it did not tell what is stored")
    if fault is not None:
        told = _not_known(told, "what is stored, and what was purged: Redis cannot be used")
    return Known(told.path, told, purge, fault is None, fault)


def _not_known(told: Explanation, what: str) -> Explanation:
    """An explanation of a process that does not see what the replicas see: not to be taken for a miss of theirs."""
    told = replace(told, unknown=(*told.unknown, what))
    if told.result != "miss":
        return told
    because = "Whether it is stored is not known here."
    return replace(told, result="unknown", because=because, reason=None, detail=None, cache_status="")
