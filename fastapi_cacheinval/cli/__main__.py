"""The entry point of `cacheinval`, which says what to install where the extra `cli` is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit; also `python -m fastapi_cacheinval.cli`."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"cacheinval needs {' and '.join(missing)}: pip install 'fastapi-cacheinval[cli]'\n")
        sys.exit(2)
    from fastapi_cacheinval.cli.commands import cacheinval  # noqa: PLC0415 - it imports what may be missing

    cacheinval(prog_name="cacheinval")


if __name__ == "__main__":
    main()
