"""`cacheinval purge` and `cacheinval clear`: purges by hand, and what became of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict

import click

from fastapi_cacheinval.cli.asking import agreed, busy
from fastapi_cacheinval.cli.console import note
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.link import linked, run, unreachable
from fastapi_cacheinval.cli.numbers import counted, duration
from fastapi_cacheinval.cli.safe import as_json, cut
from fastapi_cacheinval.cli.target import Target, json_option, target_options
from fastapi_cacheinval.connections.urls import by_url
from fastapi_cacheinval.core.checks import Wait
from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.core.receipt import Receipt
from fastapi_cacheinval.core.tag_limits import MOST_PURGE_BYTES, MOST_PURGE_TAGS, BoundedTags
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.errors import PurgeNotDelivered, ReplicasUnknown

__all__ = ["clear", "purge"]

# More tags than these are asked about.
_MANY = 20
# What replicas have that were given none.
_BOUND = 2.0
_SHOWN = 5
_LONGEST = 60
_LONGEST_LINE = 100_000

soft_option = click.option(
    "--soft", is_flag=True, help="Make responses stale: they may be served while they are made anew."
)
wait_option = click.option("--no-wait", is_flag=True, help="Do not wait until every replica has applied it.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.command()
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@click.option(
    "--path", "paths", multiple=True, metavar="PATH", help="Purge what is stored of a path or URL; may be repeated."
)
@soft_option
@wait_option
@yes_option
@target_options
@json_option
def purge(
    target: Target,
    tags: tuple[str, ...],
    paths: tuple[str, ...],
    *,
    soft: bool,
    no_wait: bool,
    yes: bool,
    as_json_: bool,
) -> None:
    """Purge every stored response that carries one of the tags, on all replicas.

    "-" reads tags from standard input, one on each line. More than 20 tags are asked about first.
    """
    named = list(_named(tags))
    if not named and not paths:
        raise CliError(
            Exit.USAGE, "There is nothing to purge: name tags, or --path. To purge everything: cacheinval clear."
        )
    bounded = BoundedTags(MOST_PURGE_TAGS, MOST_PURGE_BYTES)
    if not bounded.add(tuple(named)):
        agreed(
            f"{len(named):,} tags are more than one purge can name ({MOST_PURGE_TAGS:,} tags and 4 MiB): this purges "
            f"everything in {target}. Go on?",
            yes=yes,
        )
    elif len(named) > _MANY:
        agreed(f"Purge {len(named):,} tags in {target}?", yes=yes)
    wait: Wait = None if no_wait else "all"

    async def work(core: Internals) -> list[Receipt]:
        purges = [await core.named(tuple(named))] if named else []
        purges += [tuple(map(path_tag, core.root_paths.paths_of(path))) for path in paths]
        return [await core.purge(each, soft=soft, wait=wait) for each in purges]

    _tell(run(_made(target, work)), as_json_=as_json_)


@click.command()
@soft_option
@wait_option
@yes_option
@target_options
@json_option
def clear(target: Target, *, soft: bool, no_wait: bool, yes: bool, as_json_: bool) -> None:
    """Purge everything that is stored in the namespace, on all replicas, and nothing else."""
    fleet = run(_fleet(target))
    kept = sum(each.summary.statistics.responses for each in fleet.replicas if each.summary is not None)
    agreed(
        f"Purge everything in {target}: {counted(kept, 'response')} in the memory of "
        f"{counted(len(fleet.live), 'replica')}, and all that is stored in Redis?",
        yes=yes,
    )
    wait: Wait = None if no_wait else "all"

    async def work(core: Internals) -> list[Receipt]:
        return [await core.purge((ALL,), soft=soft, wait=wait)]

    _tell(run(_made(target, work)), as_json_=as_json_)


def _named(tags: Sequence[str]) -> Iterator[str]:
    for tag in tags:
        if tag != "-":
            yield tag
            continue
        # Bytes, so that no line is too long or too odd to be read.
        for line in sys.stdin.buffer:
            text = line[:_LONGEST_LINE].decode("utf-8", "surrogateescape").strip()
            if text:
                yield text


async def _fleet(target: Target) -> Fleet:
    async with linked(target) as link:
        return await link.used()


async def _made(target: Target, work: Callable[[Internals], Awaitable[list[Receipt]]]) -> list[Receipt]:
    """Purges over a namespace that is in use, as a replica of it would make them."""
    fleet = await _fleet(target)
    # Their leases say for how long a replica may have to be waited for.
    bound = fleet.bound or _BOUND
    settings = Settings.of({"namespace": target.namespace, "staleness_bound": bound})
    # Not `HTTPCache`: its calls may take a third of a lease at most, and here a person waits.
    core = Internals(settings, None, by_url(target.url, target.timeout), enabled=True)
    hints = _Hints()
    logger = logging.getLogger("fastapi_cacheinval.cache")
    logger.addHandler(hints)
    try:
        with busy("waiting for the replicas"):
            return await work(core)
    except PurgeNotDelivered as error:
        raise unreachable(target, error.reason) from error
    except ReplicasUnknown as error:
        raise CliError(
            Exit.UNCONFIRMED,
            f"The purge is written (term {error.term}, number {error.seq}), but not every replica is known to obey it: "
            f"{error.reason}. Do not repeat it. A replica that is out of touch stops serving within {bound:g} s.",
        ) from error
    finally:
        logger.removeHandler(hints)


class _Hints(logging.Handler):
    """Shows what the package says of tags that look like patterns or templates."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def _tell(receipts: Sequence[Receipt], *, as_json_: bool) -> None:
    for receipt in receipts:
        if as_json_:
            click.echo(as_json(asdict(receipt)))
            continue
        waited = ""
        if receipt.replicas is not None:
            waited = f" {counted(receipt.replicas, 'replica')} obeyed it within {duration(receipt.seconds)}."
        what = "everything" if receipt.everything else _what(receipt)
        kind = "Made stale" if receipt.soft else "Purged"
        click.echo(f"{kind}: {what} (term {receipt.term}, number {receipt.seq}).{waited}")


def _what(receipt: Receipt) -> str:
    names = [*receipt.tags, *receipt.paths]
    told = ", ".join(cut(name, _LONGEST) for name in names[:_SHOWN]) or "nothing: no tag is left"
    return f"{told} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else told
