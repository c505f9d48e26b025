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
from fastapi_cacheinval.cli.knowing import known_of_app, known_of_log
from fastapi_cacheinval.cli.link import run
from fastapi_cacheinval.cli.safe import as_json
from fastapi_cacheinval.cli.target import Target, json_option, named_target_options

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
        known = run(known_of_log(target(), asked))
    else:
        found = imported(app, factory=factory, directory=directory)
        with busy("starting the cache"):
            known = run(known_of_app(found, app, asked, method, _fields(headers), base_url))
    if as_json_:
        click.echo(as_json(_as_json(known)))
    else:
        console = output()
        for line in explained_lines(known, console):
            console.print(line, overflow="fold")
    if known.fault is not None:
        raise known.fault
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
            "trace": None if line is None else line.traceparent,
        },
    }
