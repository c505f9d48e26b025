"""Path templates: the parameters in them, and which of them may have the same path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["IN_PATH", "Paths"]

IN_PATH = re.compile(r"{([^{}:]+)(?::[^{}]*)?}")
"""A parameter in a template, with its convertor where that is written; the group is its name."""
_ANY, _ENDS = "{}", ""


def _segments(path: str) -> list[str]:
    """The parts between slashes; one with a parameter in it may be anything."""
    return [_ANY if IN_PATH.search(part) else part for part in path.split("/")[1:]]


class Paths:
    """Templates with their labels, of which those are found quickly that may have a path of another one."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def add(self, path: str, label: str) -> None:
        """Add one."""
        level = self._root
        for part in _segments(path):
            level = level.setdefault("/" + part, {})
        level.setdefault(_ENDS, {})[label] = None

    def matching(self, path: str) -> Iterator[str]:
        """The labels of those that may have the path of this one."""
        levels = [self._root]
        for part in _segments(path):
            found: list[dict[str, Any]] = []
            for level in levels:
                if part == _ANY:
                    found += [each for name, each in level.items() if name != _ENDS]
                else:
                    found += [level[name] for name in ("/" + part, "/" + _ANY) if name in level]
            levels = found
        for level in levels:
            yield from level.get(_ENDS, ())
