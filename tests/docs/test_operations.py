"""The page for operators answers with commands and metrics that exist."""

from __future__ import annotations

import re

import click
import pytest

from fastapi_cacheinval.cli.commands import cacheinval
from tests.helpers.documents import PAGES, ROOT

OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")
METRIC = re.compile(r"`(cacheinval\.[a-z0-9_.]+)`")


def questions() -> dict[str, str]:
    """The ten questions, each with its answer."""
    _, _, ten = OPERATIONS.partition("## Ten questions\n")
    parts = re.split(r"^### (.*)\n", ten, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def commands() -> list[tuple[str, str]]:
    """Each use of the command line in code, on any page: the page and the words."""
    return [
        (page.name, found)
        for page in PAGES
        for found in re.findall(r"(?:`|^\$ )cacheinval ([a-z][^`\n]*)", page.read_text("utf-8"), re.MULTILINE)
    ]


def test_there_are_ten_questions_and_each_is_answered_by_a_command() -> None:
    """No question is answered by prose alone."""
    assert len(questions()) == 10
    for question, answer in questions().items():
        assert question.endswith("?"), question
        assert re.search(r"\bcacheinval (?:doctor|stats|top|tail|explain|audit|purge|clear)\b|\bcurl ", answer), (
            question
        )


@pytest.mark.parametrize(("page", "written"), commands())
def test_every_command_and_option_exists(page: str, written: str) -> None:
    """A page shows no command that the program refuses."""
    name, *words = written.split()
    # `doctor|stats|top` stands for each of them.
    for each in name.split("|"):
        command = cacheinval.commands[each]
        known = {text for option in command.params if isinstance(option, click.Option) for text in option.opts}
        assert {word for word in words if word.startswith("-") and word != "-"} <= known, page


def test_every_metric_and_span_exists() -> None:
    """The page names no metric, span or attribute that the page about telemetry lacks."""
    telemetry = set(METRIC.findall((ROOT / "docs/telemetry.md").read_text("utf-8")))
    assert set(METRIC.findall(OPERATIONS)) - telemetry == set()
