"""What is known of a request that is not made: by the log alone, or by the app as well."""

from __future__ import annotations

from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.explained import Known
from fastapi_cacheinval.cli.last_purge import LastPurge, last_purge
from fastapi_cacheinval.cli.link import Link, linked
from fastapi_cacheinval.cli.opening import opened
from fastapi_cacheinval.cli.target import Target
from fastapi_cacheinval.core.explanation import Explanation
from fastapi_cacheinval.core.root_paths import RootPaths
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["known_of_app", "known_of_log"]


async def known_of_log(target: Target, asked: str) -> Known:
    """The last purge that named the path; raises `CliError`."""
    paths = RootPaths().paths_of(asked)
    async with linked(target) as link:
        await link.used()
        return Known(asked, None, await last_purge(link, [*map(path_tag, paths), ALL]))


async def known_of_app(
    app: object, name: str, asked: str, method: str, headers: dict[str, str], base_url: str | None
) -> Known:
    """What the app's routes, its cache and its log say; raises `CliError`."""
    try:
        async with opened(app, name) as (cache, core):
            told = await cache.explain(asked, method, headers, base_url=base_url)
            purge = None
            if core.connect is not None:
                link = Link(Target("redis://app", core.settings.namespace, 0.0), core.connect())
                try:
                    purge = await _purge_of(link, told, core.root_paths.paths_of(asked))
                finally:
                    await link.client.close()
            return Known(told.path, told, purge)
    except CacheinvalError as error:
        raise CliError(
            Exit.USAGE, str(error).replace('base_url="', '--base-url "').replace("base_url", "--base-url")
        ) from error


async def _purge_of(link: Link, told: Explanation, paths: tuple[str, ...]) -> LastPurge | None:
    if told.route is None:
        return None
    try:
        return await last_purge(link, [*told.tags, *map(path_tag, paths), ALL])
    except CliError:
        # That the log is out of reach is what the explanation says.
        return None
