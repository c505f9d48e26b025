"""How the demo prints: headings, one aligned line for each request, and verdicts."""

from __future__ import annotations

import os
import sys

import httpx

WIDTHS = (6, 29, 6, 3, 44, 4)
BOLD, DIM, RED, GREEN = "1", "2", "31", "32"


class Narrator:
    """Prints the story and remembers whether every fact held; colours only on a terminal without NO_COLOR."""

    def __init__(self) -> None:
        self.all_so = True
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        print(f"\n{self._paint(text, BOLD)}")

    def columns(self) -> None:
        """Name the columns of the request lines."""
        line = self._line("method", "path", "as", "", "Cache-Status", "Age")
        print(self._paint(f"{line}      ms", DIM))

    def request(self, response: httpx.Response, who: str, milliseconds: float, note: str = "") -> None:
        """Print one request and how its answer came."""
        how = response.headers.get("Cache-Status", "-")
        if purge := response.headers.get("Cacheinval-Purge"):
            how = f"purge {purge}"
        method, path = response.request.method, response.request.url.raw_path.decode()
        age = response.headers.get("Age", "-")
        line = self._line(method, path, who, str(response.status_code), how, age)
        print(f"{line} {milliseconds:7.1f}{f'  {note}' if note else ''}", flush=True)

    def fact(self, fact: str, *, so: bool) -> None:
        """State a fact and whether it was so."""
        self.all_so = self.all_so and so
        mark = self._paint("ok    ", GREEN) if so else self._paint("NOT SO", RED)
        print(f"  {mark} {fact}", flush=True)

    def _line(self, *cells: str) -> str:
        return "  " + " ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text
