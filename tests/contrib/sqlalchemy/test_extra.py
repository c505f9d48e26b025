"""The module needs its extra, and says so; the package does not."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["sqlalchemy", "greenlet"])
def test_without_its_extra_the_import_says_what_to_install(missing: str) -> None:
    """The package itself can be imported."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import fastapi_cacheinval\n"
        "try:\n"
        "    import fastapi_cacheinval.contrib.sqlalchemy\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'fastapi-cacheinval[sqlalchemy]'" in done.stdout
