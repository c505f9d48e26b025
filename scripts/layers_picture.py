"""Draw the package's layers from its imports, as a Mermaid flowchart: `python -m scripts.layers_picture`.

The layers are those that import-linter checks (`pyproject.toml`); the arrows are the imports there are. An arrow that
a chain of others implies is left out. `--write` puts the picture into `docs/architecture.md`.
"""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import grimp

__all__ = ["BEGIN", "END", "PAGE", "main", "picture", "placed"]

_ROOT = Path(__file__).parents[1]
_PACKAGE = "fastapi_cacheinval"
PAGE = _ROOT / "docs" / "architecture.md"
BEGIN = "<!-- made by `python -m scripts.layers_picture --write` -->\n```mermaid\n"
END = "```\n"


def _layers() -> list[list[str]]:
    """The rooms of each layer, the top layer first."""
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    named = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    return [re.findall(r"\w+", layer) for layer in named]


def _arrows(rooms: list[str]) -> dict[str, set[str]]:
    """Which room imports which, at any depth below them."""
    graph = grimp.build_graph(_PACKAGE)
    found: dict[str, set[str]] = {}
    for room in rooms:
        inside = {f"{_PACKAGE}.{room}", *graph.find_descendants(f"{_PACKAGE}.{room}")}
        imported = {name for module in inside for name in graph.find_modules_directly_imported_by(module)}
        targets = {name.split(".")[1] for name in imported if name.count(".") and name.startswith(_PACKAGE + ".")}
        found[room] = (targets & set(rooms)) - {room}
    return found


def _implied(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that lead where another one leads, too."""

    def beyond(room: str, passed: frozenset[str] = frozenset()) -> set[str]:
        found: set[str] = set()
        for target in arrows[room] - passed:
            found |= {target} | beyond(target, passed | {room})
        return found

    return {
        room: {target for target in targets if not any(target in beyond(other) for other in targets if other != target)}
        for room, targets in arrows.items()
    }


def picture() -> str:
    """The flowchart."""
    layers = _layers()
    rooms = [room for layer in layers for room in layer]
    out = ["flowchart TD"]
    for number, layer in enumerate(layers):
        out.append(f'    subgraph layer{number}[" "]')
        out += [f"        {room}" for room in layer]
        out.append("    end")
    out += [f"    layer{above} ~~~ layer{below}" for above, below in pairwise(range(len(layers)))]
    shown = _implied(_arrows(rooms))
    out += [f"    {room} --> {target}" for room in rooms for target in sorted(shown[room], key=rooms.index)]
    return "\n".join(out) + "\n"


def placed(page: str) -> str:
    """A page with the picture in its place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("the page has no place for the picture")
    return before + begin + picture() + end + after


def main() -> None:
    """Print the picture, or write it."""
    if "--write" in sys.argv:
        PAGE.write_text(placed(PAGE.read_text()))
    else:
        print(picture(), end="")


if __name__ == "__main__":
    main()
