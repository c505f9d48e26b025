"""The two versions of each app: as it stands, and as it was before the commit that cached it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["NAMES", "STEPS", "before", "load", "patched"]

HERE = Path(__file__).parent
NAMES = ("views", "factory", "sessions")
# The two versions, and what a diff is to be given as for them.
STEPS = ("plain", "cached")


def patched(name: str, text: str, folder: Path, *, reverse: bool) -> str:
    """An app's text with the diff of the commit that cached it, or without it."""
    file = folder / f"{name}.py"
    file.write_text(text, "utf-8")
    command = ["git", "apply", *(["--reverse"] if reverse else []), str(HERE / f"{name}.diff")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return file.read_text("utf-8")


def before(name: str, folder: Path) -> str:
    """An app's text before that commit."""
    return patched(name, (HERE / f"{name}.py").read_text("utf-8"), folder, reverse=True)


def load(name: str, step: str, folder: Path) -> ModuleType:
    """One version of an app, as a module of its own."""
    file = HERE / f"{name}.py"
    if step == "plain":
        before(name, folder)
        file = folder / file.name
    title = f"{name}_{step}"
    spec = importlib.util.spec_from_file_location(title, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Annotations are looked up there.
    sys.modules[title] = module
    spec.loader.exec_module(module)
    return module
