"""What is known of a request that is not made: by the log alone, or by the app as well."""

from __future__ import annotations

import contextlib

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.explained import Known
from fastapi_cacheinval.cli.last_purge import last_purge
from fastapi_cacheinval.cli.link import linked
from fastapi_cacheinval.cli.opening import opened
from fastapi_cacheinval.cli.target import Target
from fastapi_cacheinval.connections.client import Away
from fastapi_cacheinval.core.root_paths import RootPaths
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.engine.tiers import key_prefix
from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["known_of_app", "known_of_log"]


async def known_of_log(target: Target, asked: str) -> Known:
    """The last purge that named the path; raises `CliError`."""
    paths = RootPaths().paths_of(asked)
    async with linked(target) as link:
        await link.used()
        return Known(asked, None, await last_purge(link, link.keys, [*map(path_tag, paths), ALL]))


async def known_of_app(
    app: object, name: str, asked: str, method: str, headers: dict[str, str], base_url: str | None
) -> Known:
    """What the app's routes, its cache and its log say; raises `CliError`."""
    try:
        async with opened(app, name) as (cache, core):
            told = await cache.explain(asked, method, headers, base_url=base_url)
            if core.connect is None or told.route is None:
                return Known(told.path, told, None)
            tags = [*told.tags, *map(path_tag, core.root_paths.paths_of(asked)), ALL]
            purge, client = None, core.connect()
            try:
                with contextlib.suppress(Away):  # the explanation says that the log is out of reach
                    purge = await last_purge(client, log_keys(key_prefix(core.settings.namespace, "")), tags)
            finally:
                await client.close()
            return Known(told.path, told, purge)
    except CacheinvalError as error:
        raise CliError(
            Exit.USAGE, str(error).replace('base_url="', '--base-url "').replace("base_url", "--base-url")
        ) from error
