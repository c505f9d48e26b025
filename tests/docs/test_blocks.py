"""Every block of code in the documentation is run, or is part of a file that is."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import runpy
import textwrap
from typing import Any

import anyio
import pytest

from tests.helpers.documents import EXAMPLES, ROOT, Block, blocks, console, curl, served, settled

BLOCKS = blocks()
FILES = sorted(EXAMPLES.glob("*.py"))


def named(block: Block) -> str:
    return block.name


def test_every_page_is_read() -> None:
    """The reader of blocks finds as many as there are fences: none is skipped for its form."""
    for page in {block.page for block in BLOCKS}:
        fences = sum(line.startswith("```") for line in page.read_text("utf-8").splitlines())
        assert fences == 2 * sum(block.page == page for block in BLOCKS), page.name


def test_blocks_have_a_language_and_examples_have_a_place() -> None:
    """No block goes unchecked for want of a language, and every example file is shown or used somewhere."""
    assert {block.language for block in BLOCKS} <= {"python", "console", "text", "mermaid"}
    used = {block.example.name for block in BLOCKS if block.file}
    assert used == {file.name for file in (*FILES, *EXAMPLES.glob("*.vcl"))}


@pytest.mark.parametrize("block", blocks("file"), ids=named)
def test_a_whole_file_is_shown_as_it_is(block: Block) -> None:
    """A block that stands for a file has the file's text."""
    assert block.text == block.example.read_text("utf-8")


@pytest.mark.parametrize("block", blocks("part of"), ids=named)
def test_a_part_is_in_its_file(block: Block) -> None:
    """Each stretch of a part, between lines of three dots, stands in the file line by line."""
    whole = block.example.read_text("utf-8")
    stretches = re.split(r"^ *\.\.\.\n", block.text, flags=re.MULTILINE)
    assert any(stretch.strip() for stretch in stretches)
    for stretch in stretches:
        assert f"\n{stretch.rstrip()}\n" in f"\n{whole}", stretch


@pytest.mark.parametrize("block", blocks(None, language="python"), ids=named)
def test_a_block_without_a_file_runs_by_itself(block: Block) -> None:
    """Python that is not of a file is a program: no names are missing."""
    exec(compile(block.text, block.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_can_be_imported_and_its_tests_pass(file: Any) -> None:
    """Each file runs without a warning, and each test function in it passes."""
    names = runpy.run_path(str(file))
    for name, test in names.items():
        if not name.startswith("test_"):
            continue
        if inspect.iscoroutinefunction(test):
            anyio.run(test)
        else:
            test()


@pytest.mark.parametrize("block", blocks("prints"), ids=named)
def test_a_program_prints_what_is_shown(block: Block) -> None:
    """The output beside a program is its output."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(block.example), run_name="__main__")
    assert settled(printed.getvalue()) == settled(block.text)


@pytest.mark.parametrize("block", blocks("session"), ids=named)
def test_commands_print_what_is_shown(block: Block) -> None:
    """What stands under each curl is what a server of the example answers, but for the time and jitter."""
    steps = console(block.text)
    assert steps
    with served(block.example) as base:
        for command, shown in steps:
            assert settled(curl(command, base)) == settled(shown), command


@pytest.mark.parametrize("block", blocks("start-up error of"), ids=named)
def test_a_start_up_error_is_the_message_that_is_shown(block: Block) -> None:
    """The server is told exactly this when the app does not start; only the line breaks are the page's."""
    said: list[Any] = []

    async def start(app: Any) -> None:
        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            said.append(message)

        with contextlib.suppress(Exception):
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    anyio.run(start, runpy.run_path(str(block.example))["app"])
    assert [message["type"] for message in said] == ["lifespan.startup.failed"]
    assert said[0]["message"].split() == textwrap.dedent(block.text).split()


def test_other_commands_are_tasks_that_exist() -> None:
    """A console block that talks to no server names tasks of the Makefile, or installs."""
    tasks = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    others = blocks(None, language="console")
    assert others
    for block in others:
        for command, shown in console(block.text):
            words = command.split()
            assert not shown
            assert (words[0] == "make" and words[1] in tasks) or words[:2] == ["pip", "install"], command
