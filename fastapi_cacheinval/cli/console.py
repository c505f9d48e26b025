"""What people see: colours on a terminal alone, tables that become lists where the terminal is narrow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastapi_cacheinval.cli.safe import plain

__all__ = ["Column", "errors", "field", "note", "output", "table"]

_WIDTH_OF_PIPES = 100
_GAP = 2
_LABEL = 14
_INDENT = 2


def output() -> Console:
    """Standard output: as wide as the terminal, or as COLUMNS says, or 100 columns; NO_COLOR is obeyed."""
    return _console(stderr=False)


def errors() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    given = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() or given.isdigit() else _WIDTH_OF_PIPES
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)


def note(text: str) -> None:
    """Tell a person something beside the result, which scripts do not read."""
    errors().print(Text(plain(text), style="dim"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, and `side` of its cells. One that is not `needed` is left out where the room is short."""

    title: str
    side: Literal["left", "right"] = "left"
    needed: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """Rows under their titles; where even the needed columns do not fit, one line for each cell.

    The first column names the row. Cells are written out plain.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    kept = list(range(len(columns)))
    while kept and _width(columns, cells, kept) > width:
        spare = [each for each in kept if not columns[each].needed]
        if not spare:
            return _listed(columns, cells, width)
        kept.remove(spare[-1])
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for each in kept:
        made.add_column(columns[each].title, justify=columns[each].side, no_wrap=True)
    for row in cells:
        made.add_row(*(Text(row[each]) for each in kept))
    return made


def field(name: str, value: Text, console: Console, label: int = _LABEL) -> Iterator[Text]:
    """A name and its value, which is wrapped beside it, or below it on a narrow terminal."""
    indent = _INDENT + label
    if label and console.width < 3 * indent:
        yield Text(f"{' ' * _INDENT}{name}", style="dim")
        name, indent = "", 2 * _INDENT
    for number, line in enumerate(value.wrap(console, max(10, console.width - indent))):
        begin = " " * indent if number else f"{' ' * _INDENT}{name}".ljust(indent)
        line.rstrip()
        yield Text.assemble((begin, "dim"), line)


def _width(columns: Sequence[Column], cells: list[list[str]], kept: list[int]) -> int:
    widths = [max([cell_len(columns[each].title), *(cell_len(row[each]) for row in cells)]) for each in kept]
    return sum(widths) + _GAP * len(widths)


def _listed(columns: Sequence[Column], cells: list[list[str]], width: int) -> RenderableType:
    longest = max(cell_len(column.title) for column in columns[1:])
    lines: list[Text] = []
    for row in cells:
        lines.append(Text(row[0], style="bold", overflow="fold"))
        lines += [
            Text(f"  {column.title:<{longest}}  {cell}", overflow="fold")
            for column, cell in zip(columns[1:], row[1:], strict=True)
            if cell
        ]
    return Group(*lines)
