"""Help that fits a narrow terminal: click's own never has less than fifty columns, and cuts sentences."""

from __future__ import annotations

import shutil
from typing import Any

import click

from fastapi_cacheinval.cli.exits import Exit

__all__ = ["Commands", "NarrowContext"]

_LEAST = 30
_LONGEST_SENTENCE = 1_000


class _Formatter(click.HelpFormatter):
    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(indent_increment, max(min(columns, max_width or 80) - 2, _LEAST) if width is None else width)


class NarrowContext(click.Context):
    """The context of every command."""

    formatter_class = _Formatter


class Commands(click.Group):
    """The commands: listed with their whole first sentence; Ctrl-C ends each with the code of an interruption."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        rows = [(name, each.get_short_help_str(_LONGEST_SENTENCE)) for name, each in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(Exit.INTERRUPTED) from None
