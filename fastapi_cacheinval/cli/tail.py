"""`cacheinval tail`: purges as they happen, who made them, and when each replica obeyed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import click

from fastapi_cacheinval.bus.entries import LineError, decode_line, lines_of
from fastapi_cacheinval.cli.console import note
from fastapi_cacheinval.cli.delays import Delays
from fastapi_cacheinval.cli.link import Link, linked, run
from fastapi_cacheinval.cli.purge_lines import Printer
from fastapi_cacheinval.cli.target import Target, json_option, target_options
from fastapi_cacheinval.connections.client import Away
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.engine.clocks import ended

__all__ = ["tail"]

_LOOK = 0.5
_RETRY = 1.0
_MOST = 1_000
_QUIET = 5.0


@click.command()
@click.option(
    "--last", "-n", type=click.IntRange(0, _MOST), default=10, metavar="COUNT", help="Begin with so many. [default: 10]"
)
@click.option("--no-follow", is_flag=True, help="End after those.")
@target_options
@json_option
def tail(target: Target, last: int, *, no_follow: bool, as_json_: bool) -> None:
    """Show purges as they happen: tags, origin, trace, and each replica's delay.

    A replica tells its delays once per staleness_bound, so they follow the purge a little later.
    """
    run(_tail(target, last, Printer(as_json_=as_json_), follow=not no_follow))


async def _tail(target: Target, last: int, printer: Printer, *, follow: bool) -> None:
    async with linked(target) as link:
        await link.used()
        delays = Delays(printer)
        if not follow:
            for line in await _kept(link, last):
                printer.line(line)
                delays.expect(line, time.monotonic())
            delays.look(await link.fleet(), time.monotonic())
            delays.give_up()
            return
        async for found in _merged(link, last):
            if found is None:
                if delays.waiting:
                    with contextlib.suppress(click.ClickException):  # the subscription says that it is away
                        delays.look(await link.fleet(), time.monotonic())
                continue
            printer.line(found)
            delays.expect(found, time.monotonic())


async def _kept(link: Link, last: int) -> list[LogEntry]:
    """The last lines that the log has; the oldest first."""
    if not last:
        return []
    return lines_of(await link.command("XREVRANGE", link.keys.log, "+", "-", "COUNT", last))[::-1]


async def _merged(link: Link, last: int) -> AsyncIterator[LogEntry | None]:
    """Lines in their order, each once, and None whenever it is time to look at the replicas."""
    lines: asyncio.Queue[LogEntry | Away | None] = asyncio.Queue()
    listening, getting = asyncio.ensure_future(_listen(link, lines)), asyncio.ensure_future(lines.get())
    latest, silent = (0, 0), False
    try:
        while True:
            # Not `wait_for`, which may swallow Ctrl-C before Python 3.12.
            await asyncio.wait((getting,), timeout=_LOOK)
            if not getting.done():
                yield None
                continue
            found = getting.result()
            getting = asyncio.ensure_future(lines.get())
            if isinstance(found, Away):
                if not silent:
                    note(f"Out of touch ({found.reason}); trying again.")
                silent = True
                continue
            if found is None:
                if silent:
                    note("In touch again.")
                silent = False
                # What was written before the subscription; the first time as many as were asked for.
                with contextlib.suppress(click.ClickException):
                    for line in await _kept(link, _MOST if any(latest) else last):
                        if _place(line) > latest:
                            latest = _place(line)
                            yield line
            elif _place(found) > latest:
                latest = _place(found)
                yield found
    finally:
        await ended((listening, getting))


def _place(line: LogEntry) -> tuple[int, int]:
    """Where a line stands in all that is ever purged: a new term begins at 1 again."""
    return line.term.number, line.seq


async def _listen(link: Link, lines: asyncio.Queue[LogEntry | Away | None]) -> None:
    while True:
        try:
            async for message in link.client.messages(link.keys.channel, quiet=_QUIET):
                if message is None:
                    lines.put_nowait(None)
                    continue
                with contextlib.suppress(LineError):
                    lines.put_nowait(decode_line(message[1]))
        except Away as away:
            lines.put_nowait(away)
        await asyncio.sleep(_RETRY)
