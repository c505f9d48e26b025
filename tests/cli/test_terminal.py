"""The command as a process on a terminal: colours, questions, narrow screens, interruptions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from fastapi_cacheinval.cli.commands import cacheinval
from tests.cli.calls import BARE, ROOT, Terminal, called
from tests.cli.fleets import told, watched
from tests.servers import Valkey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def ended(terminal: Terminal) -> int:
    """Its exit code."""
    return await asyncio.to_thread(terminal.end)


def end_of_input(terminal: Terminal) -> None:
    """Ctrl-D."""
    terminal.write("\x04")


async def test_colours_are_for_terminals_alone(redis_server: Valkey, cli: Any) -> None:
    """On a terminal there are some, NO_COLOR takes them away, and what is no terminal has none."""
    async with watched(redis_server, 1) as (node,):
        await told(redis_server, node)
        env = {"CACHEINVAL_URL": redis_server.url}
        with Terminal("doctor", env=env) as terminal:
            assert await ended(terminal) == 0
        assert "\x1b[32m" in terminal.raw
        with Terminal("doctor", env={**env, "NO_COLOR": "1"}) as terminal:
            assert await ended(terminal) == 0
        assert "\x1b[32m" not in terminal.raw
        assert "\x1b" not in (await cli("doctor")).out


async def test_forty_columns_are_enough(redis_server: Valkey) -> None:
    """No line of any command is longer than the terminal."""
    async with watched(redis_server) as nodes:
        await nodes[0].ask()
        await nodes[0].cache.invalidate(*(f"product:{number}" for number in range(50)))
        await told(redis_server, *nodes)
        for command in (("stats",), ("top", "--once"), ("tail", "--no-follow"), ("doctor",), ("--help",)):
            with Terminal(*command, columns=40, env={"CACHEINVAL_URL": redis_server.url}) as terminal:
                assert await ended(terminal) == 0
            assert max(map(cell_len, terminal.text.splitlines())) <= 40, command


async def test_clear_asks_and_no_means_no(redis_server: Valkey) -> None:
    """What is about to go is named; yes does it."""
    async with watched(redis_server, 1) as (node,):
        await node.ask()
        await told(redis_server, node)
        env = {"CACHEINVAL_URL": redis_server.url}
        with Terminal("clear", env=env) as terminal:
            await asyncio.to_thread(terminal.shows, "[y/N]")
            terminal.write("n\n")
            assert await ended(terminal) == 1
        assert "1 response in the memory of 1 replica," in " ".join(terminal.text.split())
        assert "Nothing was purged." in terminal.text
        assert node.statistics.applied == 0
        with Terminal("clear", env=env) as terminal:
            await asyncio.to_thread(terminal.shows, "[y/N]")
            terminal.write("y\n")
            assert await ended(terminal) == 0
        assert node.statistics.applied == 1


@pytest.mark.parametrize(("leave", "code"), [(Terminal.interrupt, 130), (end_of_input, 1)])
async def test_a_question_that_is_left_purges_nothing(
    redis_server: Valkey, leave: Callable[[Terminal], None], code: int
) -> None:
    """Ctrl-C is an interruption, the end of the input is a no."""
    async with watched(redis_server, 1) as (node,):
        with Terminal("clear", env={"CACHEINVAL_URL": redis_server.url}) as terminal:
            await asyncio.to_thread(terminal.shows, "[y/N]")
            leave(terminal)
            assert await ended(terminal) == code
        assert "Traceback" not in terminal.text
        assert node.statistics.applied == 0


async def test_an_import_that_takes_long_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends it with the code of an interruption, wherever it is."""
    (tmp_path / "slow.py").write_text("import time\nprint('importing')\ntime.sleep(600)\n")
    with Terminal("audit", "slow:app", "--app-dir", str(tmp_path)) as terminal:
        await asyncio.to_thread(terminal.shows, "importing")
        terminal.interrupt()
        assert await ended(terminal) == 130
    assert "Traceback" not in terminal.text


async def test_tail_follows_until_it_is_interrupted(redis_server: Valkey) -> None:
    """A purge shows as it happens, its delays when they are told; an outage is said once; Ctrl-C ends it."""
    async with watched(redis_server, 2) as (one, two):
        env = {"CACHEINVAL_URL": redis_server.url}
        with Terminal("tail", columns=200, env=env) as terminal:
            # Another process than the two replicas are in.
            with Terminal("purge", "item:first", "--no-wait", env=env) as purge:
                assert await ended(purge) == 0
            await asyncio.to_thread(terminal.shows, "item:first from ")
            await told(redis_server, one, two)
            await asyncio.to_thread(terminal.shows, "1/1 applied by 2: ")
            redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.to_thread(terminal.shows, "In touch again.")
            await one.cache.invalidate("item:second")
            await asyncio.to_thread(terminal.shows, "item:second from ")
            terminal.interrupt()
            assert await ended(terminal) == 130
        assert terminal.text.count("item:first from ") == 1
        assert "Traceback" not in terminal.text


def test_what_reads_no_more_ends_a_command_without_a_word() -> None:
    """As `cacheinval ... | head -1` does."""
    with subprocess.Popen(
        [sys.executable, "-m", "fastapi_cacheinval.cli", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    """The script is for the shell, and names the variable that the command obeys."""
    shown = called("completion", shell)
    assert shown.code == 0
    assert "_CACHEINVAL_COMPLETE" in shown.out


def test_a_shell_that_asks_is_told_the_commands() -> None:
    """By click's protocol for bash."""
    result = subprocess.run(
        [sys.executable, "-c", "from fastapi_cacheinval.cli.__main__ import main; main()"],
        env={"_CACHEINVAL_COMPLETE": "bash_complete", "COMP_WORDS": "cacheinval p", "COMP_CWORD": "1", **BARE},
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert result.stdout == "plain,purge\n"


@pytest.mark.parametrize(
    "command", ["audit", "stats", "top", "tail", "purge", "clear", "explain", "doctor", "completion"]
)
def test_every_command_explains_itself(command: str) -> None:
    """`--help` begins with what the command does, and the list of commands has its first sentence."""
    shown = called(command, "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: cacheinval {command}") or f" {command} " in shown.out.splitlines()[0]
    listed = " ".join(called("--help", env={"COLUMNS": "40"}).out.partition("Commands:")[2].split())
    sentence = cacheinval.commands[command].get_short_help_str(1_000)
    assert f"{command} {sentence}" in listed
    assert "..." not in listed


def test_the_exit_codes_are_in_the_help() -> None:
    """For scripts."""
    assert "3  Redis is away, or refuses" in called("--help").out
    assert called("nonsense").code == 2
    assert called("--version").out.startswith("cacheinval, version ")
