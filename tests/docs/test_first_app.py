"""The README's first example, as somebody who copies it sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.documents import ROOT, blocks, console, curl, settled


def test_the_first_example_runs_in_an_empty_folder(tmp_path: Path) -> None:
    """One file, `uvicorn app:app`, nothing but the package on the path: each curl of the README prints what it shows."""
    readme = ROOT / "README.md"
    [example] = [block for block in blocks("file") if block.page == readme]
    [session] = [block for block in blocks("session") if block.page == readme]
    folder, libraries = tmp_path / "empty", tmp_path / "libraries"
    folder.mkdir()
    libraries.mkdir()
    (folder / "app.py").write_text(example.text, "utf-8")
    (libraries / "fastapi_cacheinval").symlink_to(ROOT / "fastapi_cacheinval")
    command = [
        sys.executable,
        "-W",
        "error::DeprecationWarning:fastapi_cacheinval",
        "-m",
        "uvicorn",
        "app:app",
        "--port",
        "0",
    ]
    environment = {**os.environ, "PYTHONPATH": str(libraries)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = ""
            while not (running := re.search(r"running on (http://\S+)", said)):
                line = server.stderr.readline()
                assert line, f"the server ended: {said}"
                said += line
            steps = console(session.text)
            assert len(steps) == 4
            for step, shown in steps:
                assert settled(curl(step, running[1])) == settled(shown), step
        finally:
            server.terminate()
