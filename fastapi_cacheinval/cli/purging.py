"""`cacheinval purge` and `cacheinval clear`: purges by hand, and what became of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from fastapi_cacheinval.cli.asking import agreed, busy
from fastapi_cacheinval.cli.exits import CliError, Exit
from fastapi_cacheinval.cli.link import fleet_in_use, run
from fastapi_cacheinval.cli.numbers import counted, duration
from fastapi_cacheinval.cli.publishing import published
from fastapi_cacheinval.cli.purge_lines import what_of
from fastapi_cacheinval.cli.safe import as_json
from fastapi_cacheinval.cli.target import Target, json_option, target_options
from fastapi_cacheinval.core.checks import Wait
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.core.fleet import summaries_of
from fastapi_cacheinval.core.tag_limits import MOST_PURGE_BYTES, MOST_PURGE_TAGS, BoundedTags

__all__ = ["clear", "purge"]

# More tags than these are asked about.
_MANY = 20
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
    if not all(map(str.strip, paths)):
        raise CliError(Exit.USAGE, "A path is empty. Write it as clients do, such as --path /products/42.")
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

    with busy("waiting for the replicas"):
        receipts = run(published(target, named, paths, soft=soft, everything=False, wait=wait))
    _tell(receipts, as_json_=as_json_)


@click.command()
@soft_option
@wait_option
@yes_option
@target_options
@json_option
def clear(target: Target, *, soft: bool, no_wait: bool, yes: bool, as_json_: bool) -> None:
    """Purge everything that is stored in the namespace, on all replicas, and nothing else."""
    fleet = run(fleet_in_use(target))
    kept = sum(each.statistics.responses for each in summaries_of(fleet.replicas))
    agreed(
        f"Purge everything in {target}: {counted(kept, 'response')} in the memory of "
        f"{counted(len(fleet.live), 'replica')}, and all that is stored in Redis?",
        yes=yes,
    )
    wait: Wait = None if no_wait else "all"

    with busy("waiting for the replicas"):
        receipts = run(published(target, (), (), soft=soft, everything=True, wait=wait))
    _tell(receipts, as_json_=as_json_)


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


def _tell(receipts: Sequence[Receipt], *, as_json_: bool) -> None:
    for receipt in receipts:
        if as_json_:
            click.echo(as_json(asdict(receipt)))
            continue
        waited = ""
        if receipt.replicas is not None:
            waited = f" {counted(receipt.replicas, 'replica')} obeyed it within {duration(receipt.seconds)}."
        what = what_of(receipt, nothing="nothing: no tag is left")
        kind = "Made stale" if receipt.soft else "Purged"
        click.echo(f"{kind}: {what} (term {receipt.term}, number {receipt.seq}).{waited}")
