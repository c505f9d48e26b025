"""The commands by name."""

from __future__ import annotations

import logging

import click
from click.shell_completion import get_completion_class

from fastapi_cacheinval.cli.audit import audit
from fastapi_cacheinval.cli.doctor import doctor
from fastapi_cacheinval.cli.explain import explain
from fastapi_cacheinval.cli.help import Commands, NarrowContext
from fastapi_cacheinval.cli.purging import clear, purge
from fastapi_cacheinval.cli.stats import stats
from fastapi_cacheinval.cli.tail import tail
from fastapi_cacheinval.cli.top import top
from fastapi_cacheinval.version import __version__

__all__ = ["cacheinval"]

_EPILOG = """\b
Exit codes:
  0  done, and nothing is wrong
  1  something is wrong, or declined
  2  a wrong call
  3  Redis is away, or refuses
  4  the app does not start
  5  not every replica has confirmed
"""


@click.group(
    cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="cacheinval")
def cacheinval() -> None:
    """See what the caches of your replicas do, find out what is wrong, and purge by hand.

    Commands over Redis take --url, or CACHEINVAL_URL, as the app does, and see all replicas.
    """
    # What the package logs is for the logs of apps; a command says what it has to say itself.
    logging.getLogger("fastapi_cacheinval").addHandler(logging.NullHandler())


@cacheinval.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print a script that completes commands and options in your shell.

    \b
    bash:  eval "$(cacheinval completion bash)"
    zsh:   eval "$(cacheinval completion zsh)"
    fish:  cacheinval completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cacheinval, {}, "cacheinval", "_CACHEINVAL_COMPLETE").source())


for command in (audit, stats, top, tail, purge, clear, explain, doctor):
    cacheinval.add_command(command)
for each in (cacheinval, *cacheinval.commands.values()):
    each.context_class = NarrowContext
