"""Check that a wheel holds the package, its pages, type marker, command and licence, and nothing else.

Its path is the argument.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGE = "fastapi_cacheinval"


def problems(names: list[str], sources: list[str]) -> list[str]:
    """What is wrong with a wheel of these files, made from a checkout with these source files."""
    inside = [name for name in names if ".dist-info/" not in name]
    found = [f"foreign file {name}" for name in inside if not name.startswith(f"{PACKAGE}/")]
    found += [f"missing {name}" for name in sources if name not in inside]
    if f"{PACKAGE}/py.typed" not in inside:
        found.append("no py.typed")
    if not any(name.endswith(".dist-info/entry_points.txt") for name in names):
        found.append("no console script")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("no licence")
    return found


def main() -> int:
    wheel = Path(sys.argv[1])
    root = Path(__file__).resolve().parent.parent
    files = sorted([*(root / PACKAGE).rglob("*.py"), *(root / PACKAGE).glob("*/static/*")])
    sources = [path.relative_to(root).as_posix() for path in files]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = problems(names, sources)
    for problem in found:
        print(f"{wheel.name}: {problem}", file=sys.stderr)
    if not found:
        print(f"{wheel.name}: {len(sources)} modules and files of pages, py.typed, command, licence, nothing else")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
