"""`cacheinval explain`: what a request would get now, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import click

from fastapi_cacheinval.cli.apps import imported
from fastapi_cacheinval.cli.asking import busy
from fastapi_cacheinval.cli.audit import app_options
from fastapi_cacheinval.cli.console import output
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.explained import Known, explained_lines
from fastapi_cacheinval.cli.last_purge import LastPurge, last_purge
from fastapi_cacheinval.cli.link import Link, linked, run
from fastapi_cacheinval.cli.opening import opened
from fastapi_cacheinval.cli.safe import as_json
from fastapi_cacheinval.cli.target import Target, json_option, named_target_options
from fastapi_cacheinval.core.explanation import Explanation
from fastapi_cacheinval.core.root_paths import RootPaths
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["explain"]


@click.command()
@click.argument("asked", metavar="URL")
@click.option("--app", metavar="MODULE:APP", help="The app that answers it; without it only the log is asked.")
@click.option("--method", default="GET", metavar="METHOD", help="The request's method. [default: GET]")
@click.option(
    "--header", "-H", "headers", multiple=True, metavar="FIELD", help="A request field, 'Name: value'; may be repeated."
)
@click.option("--base-url", metavar="URL", help="Scheme and host as clients send them, where URL is a path.")
@app_options
@named_target_options
@json_option
def explain(
    target: Callable[[], Target],
    asked: str,
    app: str | None,
    method: str,
    headers: tuple[str, ...],
    base_url: str | None,
    directory: str,
    *,
    factory: bool,
    as_json_: bool,
) -> None:
    """Say what a request would get now, and why; the request is not made.

    With --app: the route, the parts of the key, what is stored in Redis and since when, its tags, and the last purge
    that hit it. The app is imported and its cache started, at the Redis that the app names; its lifespan and its
    handlers do not run. Without --app: the last purge that named the path.
    """
    if app is None:
        known = run(_of_log(target(), asked))
    else:
        found = imported(app, factory=factory, directory=directory)
        with busy("starting the cache"):
            known = run(_of_app(found, app, asked, method, _fields(headers), base_url))
    if as_json_:
        click.echo(as_json(_as_json(known)))
    else:
        console = output()
        for line in explained_lines(known, console):
            console.print(line, overflow="fold")
    if known.explanation is not None and known.explanation.route is None:
        raise SystemExit(Exit.NO)


def _fields(headers: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise CliError(Exit.USAGE, f"{header!r} is no request field. Write 'Name: value'.")
        found[name.strip()] = value.strip()
    return found


async def _of_log(target: Target, asked: str) -> Known:
    paths = RootPaths().paths_of(asked)
    async with linked(target) as link:
        await link.used()
        return Known(asked, None, await last_purge(link, [*map(path_tag, paths), ALL]))


async def _of_app(
    app: object, name: str, asked: str, method: str, headers: dict[str, str], base_url: str | None
) -> Known:
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


def _as_json(known: Known) -> dict[str, object]:
    purge = known.last_purge
    line = None if purge is None else purge.line
    return {
        "path": known.path,
        "explanation": None if known.explanation is None else asdict(known.explanation),
        "last_purge": None
        if purge is None
        else {
            "tag": purge.shown,
            "seq": purge.seq,
            "soft": purge.soft,
            "at": None if line is None else line.at,
            "origin": None if line is None else line.origin,
            "trace": None if line is None else dict(line.trace).get("traceparent", ""),
        },
    }
