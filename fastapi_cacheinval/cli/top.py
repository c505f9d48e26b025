"""`cacheinval top`: what is asked now, by route, on all replicas together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from fastapi_cacheinval.cli.console import Column, output, table
from fastapi_cacheinval.cli.exits import CliError
from fastapi_cacheinval.cli.link import Link, linked, run
from fastapi_cacheinval.cli.numbers import bytes_of, count, counted, duration, moment, ratio
from fastapi_cacheinval.cli.safe import as_json, cut, plain
from fastapi_cacheinval.cli.target import Target, json_option, target_options
from fastapi_cacheinval.core.fleet import Fleet, summaries_of
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.traffic import RouteTraffic, traffic

__all__ = ["top"]

_LONGEST_ROUTE = 48
_CHROME = 4
_COLUMNS = (
    Column("route", needed=True),
    Column("req/s", "right", needed=True),
    Column("hits", "right", needed=True),
    Column("forward", "right"),
    Column("saved", "right"),
    Column("memory", "right"),
    Column("requests", "right"),
    Column("stale", "right"),
    Column("collapsed", "right"),
    Column("errors", "right"),
)


@click.command()
@click.option("--once", is_flag=True, help="Print once and end, as where the output is no terminal.")
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=2.0, metavar="SECONDS", help="How often to look. [default: 2]"
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=None, metavar="ROUTES", help="Show so many routes.")
@target_options
@json_option
def top(target: Target, *, once: bool, every: float, limit: int | None, as_json_: bool) -> None:
    """Show the busiest routes, live: requests per second, hits, time saved, memory.

    Each replica tells its 24 busiest routes once per staleness_bound. With --json every look is one line. Ctrl-C ends
    it.
    """
    run(_top(target, every, limit, once=once, as_json_=as_json_))


async def _top(target: Target, every: float, limit: int | None, *, once: bool, as_json_: bool) -> None:
    console = output()
    async with linked(target) as link:
        fleet = await link.used()
        if as_json_:
            async for seen, _ in _looks(link, every, fleet, once=once):
                click.echo(as_json(_as_json(seen, limit)))
        elif once or not console.is_terminal:
            console.print(_shown(fleet, limit, console.width))
        else:
            with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
                async for seen, trouble in _looks(link, every, fleet, once=False):
                    fits = max(1, console.height - _CHROME)
                    live.update(_shown(seen, limit or fits, console.width, trouble), refresh=True)


async def _looks(link: Link, every: float, fleet: Fleet, *, once: bool) -> AsyncIterator[tuple[Fleet, str]]:
    """What is there, again and again; while Redis is away the last that was seen, and why."""
    trouble = ""
    while True:
        yield fleet, trouble
        if once:
            return
        await asyncio.sleep(every)
        try:
            fleet, trouble = await link.fleet(), ""
        except CliError as error:
            trouble = error.message


def _shown(fleet: Fleet, limit: int | None, width: int, trouble: str = "") -> RenderableType:
    rows = traffic(fleet)
    told = [each.statistics for each in summaries_of(fleet.live)]
    rate = sum(row.rate for row in rows)
    when = moment(fleet.now)
    lines = [
        Text(
            f"{plain(fleet.namespace)} {when}  {counted(len(fleet.live), 'replica')}  {count(rate)} req/s", style="bold"
        ),
        Text(
            f"{bytes_of(sum(each.size_bytes for each in told))} of "
            f"{bytes_of(sum(each.max_bytes for each in told))} in memory, {_queue(told)}"
        ),
    ]
    if trouble:
        lines.append(Text(cut(trouble, 2 * width), style="red"))
    left_out = sum(each.routes_left_out for each in summaries_of(fleet.replicas))
    shown = rows[:limit]
    if not shown:
        return Group(*lines, Text("No cached route has been asked yet."))
    parts: list[RenderableType] = [*lines, table(_COLUMNS, [_row(row, width) for row in shown], width)]
    if len(rows) > len(shown) or left_out:
        parts.append(
            Text(f"and {count(len(rows) - len(shown) + left_out)} more that rest or are asked less", style="dim")
        )
    return Group(*parts)


def _queue(told: list[Statistics]) -> str:
    waiting = sum(each.queue_length for each in told)
    return f"{counted(waiting, 'purge')} to be written" if waiting else "no purge waits"


def _row(row: RouteTraffic, width: int) -> list[str]:
    found = row.counts
    return [
        cut(row.route, min(_LONGEST_ROUTE, max(12, width - 18))),
        count(row.rate),
        ratio(found.hits, found.requests),
        duration(row.mean_forward),
        duration(found.saved_seconds),
        bytes_of(found.size_bytes),
        count(found.requests),
        count(found.stale),
        count(found.collapsed),
        count(found.errors),
    ]


def _as_json(fleet: Fleet, limit: int | None) -> dict[str, Any]:
    rows = traffic(fleet)
    return {
        "namespace": fleet.namespace,
        "at": fleet.now,
        "replicas": len(fleet.live),
        "routes": [
            {"route": row.route, "per_second": row.rate, "mean_forward_seconds": row.mean_forward, **asdict(row.counts)}
            for row in rows[:limit]
        ],
    }
