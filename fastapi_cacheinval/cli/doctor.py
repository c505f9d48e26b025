"""`cacheinval doctor`: what is wrong with the server and the replicas, and what to do."""

from __future__ import annotations

import click
from rich.text import Text

from fastapi_cacheinval.cli.asking import busy
from fastapi_cacheinval.cli.console import output
from fastapi_cacheinval.cli.examining import examined
from fastapi_cacheinval.cli.exits import Exit
from fastapi_cacheinval.cli.link import linked, run
from fastapi_cacheinval.cli.safe import as_json, plain
from fastapi_cacheinval.cli.target import Target, json_option, target_options
from fastapi_cacheinval.core.doctor.diagnosis import diagnosis
from fastapi_cacheinval.core.doctor.finding import Finding, Level, worst

__all__ = ["doctor"]

_MARKS = {
    Level.OK: ("ok", "green"),
    Level.UNKNOWN: ("?", "cyan"),
    Level.WARNING: ("warn", "yellow"),
    Level.ERROR: ("FAIL", "bold red"),
}
_INDENT = 6


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too, not for errors alone.")
@target_options
@json_option
def doctor(target: Target, *, strict: bool, as_json_: bool) -> None:
    """Examine the server and the replicas: what is wrong, and what to do.

    Nothing is changed. What the user of the URL may not look at is shown as unknown.
    """
    with busy("examining"):
        findings = run(_examined(target))
    bad = worst(findings)
    if as_json_:
        told = [
            {"check": each.check, "level": each.level.value, "found": each.found, "cure": each.cure}
            for each in findings
        ]
        click.echo(as_json({"worst": bad.value, "findings": told}))
    else:
        _print(findings)
    if bad is Level.ERROR or (strict and bad is Level.WARNING):
        raise SystemExit(Exit.NO)


async def _examined(target: Target) -> list[Finding]:
    async with linked(target) as link:
        return diagnosis(await examined(link))


def _print(findings: list[Finding]) -> None:
    console = output()
    for finding in findings:
        mark, style = _MARKS[finding.level]
        told = Text.assemble((f"{mark:<{_INDENT}}", style), (f"{finding.check}: ", "bold"), plain(finding.found))
        if finding.cure:
            told.append(f" {plain(finding.cure)}", style)
        lines = told.wrap(console, max(20, console.width - _INDENT))
        for number, line in enumerate(lines):
            line.rstrip()
            console.print(Text(" " * _INDENT if number else "") + line, overflow="fold")
