"""`cacheinval audit`: what an app's routes say of caching, which mutations purge what, and the holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from fastapi_cacheinval.cli.apps import imported
from fastapi_cacheinval.cli.asking import busy
from fastapi_cacheinval.cli.console import field, output
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.explained import answered_at
from fastapi_cacheinval.cli.numbers import counted
from fastapi_cacheinval.cli.safe import as_json, plain
from fastapi_cacheinval.cli.target import json_option
from fastapi_cacheinval.core.audit import Audit, MutationAudit, RouteAudit
from fastapi_cacheinval.errors import CacheinvalError
from fastapi_cacheinval.unstarted import audit_app

__all__ = ["app_options", "audit"]


def app_options(command: Any) -> Any:
    """Give a command `--factory` and `--app-dir`."""
    command = click.option("--factory", is_flag=True, help="The name is a function that makes the app.")(command)
    return click.option(
        "--app-dir",
        "directory",
        default=".",
        type=click.Path(exists=True, file_okay=False),
        metavar="DIRECTORY",
        help="Where to look for the module. [default: here]",
    )(command)


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--strict", is_flag=True, help="Exit with 1 where there is a hole, for CI.")
@click.option("--holes", "only_holes", is_flag=True, help="Print the holes alone.")
@click.option("--changes-elsewhere", is_flag=True, help="Purges also come from sessions or events.")
@app_options
@json_option
def audit(
    app: str,
    directory: str,
    *,
    strict: bool,
    only_holes: bool,
    changes_elsewhere: bool,
    factory: bool,
    as_json_: bool,
) -> None:
    """Show who shares each cached route, its key and tags, and which mutations purge it.

    Then the holes: cached routes that nothing purges, mutations that purge nothing, tags in one place only. The app is
    imported and not started: nothing is connected, and no handler runs.
    """
    with busy("reading the routes"):
        found = _audited(imported(app, factory=factory, directory=directory), app, changes_elsewhere)
    if as_json_:
        click.echo(as_json({**asdict(found), "holes": list(found.holes)}))
    else:
        console = output()
        for line in _lines(found, console, only_holes=only_holes):
            console.print(line, overflow="fold")
    if found.refusals:
        raise SystemExit(Exit.APP)
    if strict and found.holes:
        raise SystemExit(Exit.NO)


def _audited(app: Any, name: str, changes_elsewhere: bool) -> Audit:  # noqa: FBT001 - as it was given
    try:
        return audit_app(app, changes_elsewhere=changes_elsewhere)
    except CacheinvalError as error:
        raise CliError(Exit.APP, f"{name}: {error}") from error
    except Exception as error:
        # Whatever an object that is no app does when it is looked at.
        raise CliError(Exit.APP, f"{name} cannot be audited: {type(error).__name__}: {error}") from error


def _lines(found: Audit, console: Console, *, only_holes: bool) -> Iterator[Text]:
    if not only_holes:
        for route in found.routes:
            yield from _route(route, console)
        if found.mutations:
            yield Text("Mutations", style="bold")
            for mutation in found.mutations:
                yield from _mutation(mutation, console)
        for warning in found.warnings:
            yield from field("warning", Text(plain(warning), style="yellow"), console)
    holes = found.holes
    yield Text(counted(len(holes), "hole") if holes else "No holes", style="bold red" if holes else "bold green")
    for hole in holes:
        for number, line in enumerate(plain(each) for each in hole.splitlines()):
            yield Text(f"{'- ' if not number else '  '}{line}")
    yield Text(
        f"{counted(len(found.routes), 'cached route')}, {counted(len(found.uncached), 'other GET route')}, "
        f"{counted(len(found.mutations), 'mutation')}",
        style="dim",
    )


def _route(route: RouteAudit, console: Console) -> Iterator[Text]:
    yield Text(plain(route.route), style="bold")
    tags = ", ".join(route.tags) or "none"
    more = " and more while answering" if route.adds_tags else ""
    fresh = f"for {route.ttl:g} s"
    if route.stale_while_revalidate:
        fresh += f", then stale for {route.stale_while_revalidate:g} s"
    if route.stale_if_error:
        fresh += f", on errors for {route.stale_if_error:g} s"
    fields = {
        "shared by": Text(f"{route.shared_by}: {plain(route.why)}"),
        "key": Text(plain(", ".join(route.key))),
        "tags": Text(plain(tags + more)),
        "fresh": Text(fresh),
        "answered": Text(plain(answered_at(route.lookup, route.front_off))),
        "purged by": Text(plain(", ".join(route.purged_by))) if route.purged_by else Text("nothing", style="red"),
    }
    for label, value in fields.items():
        yield from field(label, value, console)


def _mutation(mutation: MutationAudit, console: Console) -> Iterator[Text]:
    text = Text.assemble((plain(mutation.route), "bold"), f" purges {plain(_purged(mutation))}")
    yield from field("", text, console, label=0)


def _purged(mutation: MutationAudit) -> str:
    """The pages that a mutation purges, or why none is known."""
    if mutation.purges:
        return ", ".join(mutation.purges)
    if mutation.only_reads:
        return "nothing, as declared"
    if mutation.tags:
        return f"{', '.join(mutation.tags)}, which no page declares; a page may add it while answering"
    if mutation.adds_tags:
        return "tags that it adds while answering"
    return "nothing"
