"""Help that fits a narrow terminal: click's own never has less than fifty columns."""

from __future__ import annotations

import shutil

import click

__all__ = ["NarrowContext"]

_LEAST = 30


class _Formatter(click.HelpFormatter):
    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(indent_increment, max(min(columns, max_width or 80) - 2, _LEAST) if width is None else width)


class NarrowContext(click.Context):
    """The context of every command."""

    formatter_class = _Formatter
