"""Without the extra."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["sqlalchemy"] = None
import fastapi_cacheinval.contrib
try:
    import fastapi_cacheinval.contrib.outbox
except ImportError as error:
    print(error)
"""


def test_without_sqlalchemy_the_import_says_what_to_install() -> None:
    """The name of the extra, as pip takes it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert "pip install 'fastapi-cacheinval[outbox]'" in done.stdout
