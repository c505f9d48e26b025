"""`cacheinval stats`: what every replica counts, and the sum of all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from fastapi_cacheinval.cli.console import Column, output, table
from fastapi_cacheinval.cli.link import fleet_in_use, run
from fastapi_cacheinval.cli.numbers import bytes_of, count, counted, duration, ratio
from fastapi_cacheinval.cli.safe import as_json, cut, plain
from fastapi_cacheinval.cli.target import Target, json_option, target_options
from fastapi_cacheinval.core.fleet import Fleet, SeenReplica, summaries_of
from fastapi_cacheinval.core.statistics import Statistics

__all__ = ["stats"]

_COLUMNS = (
    Column("replica", needed=True),
    Column("lease", "right", needed=True),
    Column("requests", "right", needed=True),
    Column("hits", "right", needed=True),
    Column("memory", "right"),
    Column("responses", "right"),
    Column("behind", "right"),
    Column("queue", "right"),
    Column("up", "right"),
    Column("app"),
    Column("release"),
)

_LONGEST_NAME = 30


@click.command()
@target_options
@json_option
def stats(target: Target, *, as_json_: bool) -> None:
    """What each replica counts: requests, hits, memory, lease, lag, queue.

    Counts are since the replica started. A replica tells them once per staleness_bound.
    """
    fleet = run(fleet_in_use(target))
    if as_json_:
        click.echo(as_json(_as_json(fleet)))
        return
    console = output()
    assert fleet.log is not None
    log = fleet.log
    console.print(
        Text(
            f"{plain(fleet.namespace)}: term {log.term}, {counted(log.seq, 'purge')}, "
            f"{counted(len(fleet.live), 'replica')} with a lease"
        )
    )
    if not fleet.replicas:
        return
    rows = [_row(replica, fleet) for replica in fleet.replicas]
    if len(rows) > 1:
        rows.append(_total(fleet))
    console.print(table(_COLUMNS, rows, console.width))


def _row(replica: SeenReplica, fleet: Fleet) -> list[str]:
    lease = duration(replica.lease) if replica.live else "none"
    summary, behind = replica.summary, fleet.behind(replica)
    if summary is None:
        return [replica.name, lease, *["–"] * (len(_COLUMNS) - 2)]
    found = summary.statistics
    return [
        replica.name,
        lease,
        count(_requests(found)),
        ratio(found.hits, _requests(found)),
        bytes_of(found.size_bytes),
        count(found.responses),
        "–" if behind is None else count(behind),
        count(found.queue_length),
        duration(summary.uptime),
        cut(", ".join(summary.apps), _LONGEST_NAME),
        cut(summary.release, _LONGEST_NAME),
    ]


def _total(fleet: Fleet) -> list[str]:
    found = [each.statistics for each in summaries_of(fleet.replicas)]
    requests = sum(map(_requests, found))
    return [
        "all",
        "",
        count(requests),
        ratio(sum(each.hits for each in found), requests),
        bytes_of(sum(each.size_bytes for each in found)),
        count(sum(each.responses for each in found)),
        "",
        count(sum(each.queue_length for each in found)),
        *[""] * 3,
    ]


def _requests(found: Statistics) -> int:
    return found.hits + found.stale + found.misses + found.collapsed + found.bypassed


def _as_json(fleet: Fleet) -> dict[str, Any]:
    """The whole fleet as plain values; a replica's `summary` is null where it has left none."""
    return {
        "namespace": fleet.namespace,
        "at": fleet.now,
        "log": None if fleet.log is None else asdict(fleet.log),
        "replicas": [
            {
                "replica": each.replica,
                "name": each.name,
                "live": each.live,
                "lease": each.lease,
                "silent": each.silent,
                "applied": None if each.acknowledged is None else each.acknowledged.applied,
                "summary": None if each.summary is None else _summary(asdict(each.summary)),
            }
            for each in fleet.replicas
        ],
    }


def _summary(values: dict[str, Any]) -> dict[str, Any]:
    names = ("term", "seq", "seconds", "late")
    return {**values, "applied": [dict(zip(names, purge, strict=True)) for purge in values["applied"]]}
