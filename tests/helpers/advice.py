"""What a refusal advises: the sentence on what its covers leave behind, and the line."""

from __future__ import annotations

import re


def line_in(advice: str) -> str:
    """The fields of the first `cached(..., ...)` that is said to work."""
    (line,) = re.findall(r"[tT]his line works[^:]*: cached\(\.\.\., (.*?)\)(?=, or|\.$)", advice, re.MULTILINE)
    return str(line)


def left_by(those: str, *, module: str = "") -> str:
    """What is said of covers, by name, and the beginning of the line; `module` has its names where that is said."""
    names = f", with the names of {module}" if module else ""
    return (
        f"If the answer depends on something that {those} leaves behind (in a context variable, request.state or a "
        f"shared object), give that as a value and name it in partition_by. If not, this line works{names}: "
    )
