"""How the demo prints: headings, one aligned line for each request, and verdicts."""

from __future__ import annotations

import os
import sys

import httpx

WIDTHS = (2, 6, 29, 6, 3, 50, 4)
BOLD, DIM, RED, GREEN, YELLOW, BLUE = "1", "2", "31", "32", "33", "34"
PREFIX = "cacheinval; "


class Narrator:
    """Prints the story and remembers whether every fact held; colours only on a terminal without NO_COLOR."""

    def __init__(self) -> None:
        self.all_so = True
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Print a line that is neither a request nor a verdict."""
        print(self._paint(f"  {text}", DIM), flush=True)

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        print(f"\n{self._paint(text, BOLD)}", flush=True)

    def columns(self) -> None:
        """Name the columns of the request lines."""
        cells = [cell.ljust(width) for cell, width in zip(TITLES, WIDTHS, strict=True)]
        print(self._paint(f"\n  {' '.join(cells)}      ms", DIM))

    def request(self, response: httpx.Response, at: str, who: str, milliseconds: float, note: str = "") -> None:
        """Print one request and how its answer came."""
        how = response.headers.get("Cache-Status", "-").removeprefix(PREFIX)
        if purge := response.headers.get("Cacheinval-Purge"):
            how = f"purge {purge}"
        method, path = response.request.method, response.request.url.raw_path.decode()
        cells = (at, method, path, who, str(response.status_code), how, response.headers.get("Age", "-"))
        padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)]
        padded[5] = self._paint(padded[5], _colour(how, response.status_code))
        tail = f"  {self._paint(note, DIM)}" if note else ""
        print(f"  {' '.join(padded)} {milliseconds:7.1f}{tail}", flush=True)

    def fact(self, fact: str, *, so: bool) -> None:
        """State a fact and whether it was so."""
        self.all_so = self.all_so and so
        mark = self._paint("ok    ", GREEN) if so else self._paint("NOT SO", RED)
        print(f"  {mark} {fact}", flush=True)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours and code else text


TITLES = ("at", "method", "path", "as", "", "Cache-Status: cacheinval;", "Age")


def _colour(how: str, status: int) -> str:
    if status >= 400 or how == "purge queued":
        return RED if status >= 400 else YELLOW
    if how.startswith("hit"):
        return YELLOW if "ttl=-" in how else GREEN
    return BLUE if "fwd=" in how else ""
