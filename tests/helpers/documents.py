"""Reading the documentation as its readers do: its blocks, its commands, and what they print."""

from __future__ import annotations

import re
import runpy
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
LOCAL_REDIS = "redis://localhost:6379/0"
"""The Redis that the pages name."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<kind>file|part of|session|prints|start-up error of): (?P<file>\S+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# What differs from run to run: the jitter of lifetimes, and the time.
_VARIES = [
    (re.compile(r"^date: .*$", re.MULTILINE), "date: now"),
    (re.compile(r"\bttl=\d+"), "ttl=n"),
    # What pydantic says of a parameter has a part in it, and differs from version to version.
    (re.compile(r"\bkey=[0-9a-f]{16}\b"), "key=k"),
]


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what the comment before it says of it, and its text."""

    page: Path
    line: int
    language: str
    kind: str | None
    file: str | None
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def example(self) -> Path:
        """The file that the block is of."""
        assert self.file is not None
        return ROOT / self.file


def blocks(*kinds: str | None, language: str | None = None) -> list[Block]:
    """The blocks of all pages with one of the kinds, or of a language."""
    found: list[Block] = []
    for page in PAGES:
        content = page.read_text("utf-8")
        for match in _BLOCK.finditer(content):
            line = content.count("\n", 0, match.start()) + 1
            block = Block(page, line, match["language"], match["kind"], match["file"], match["text"])
            if (not kinds or block.kind in kinds) and language in (None, block.language):
                found.append(block)
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def settled(text: str) -> str:
    """Text without what differs from run to run."""
    for pattern, replacement in _VARIES:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@contextmanager
def served(example: Path) -> Iterator[str]:
    """The `app` of an example behind a real uvicorn, freshly made; its base URL."""
    app = runpy.run_path(str(example))["app"]
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    # A request that comes before the server runs waits in it.
    listening.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def console(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown after it."""
    steps: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        steps.append((command, output))
    return steps


def curl(command: str, base: str) -> str:
    """What `curl` prints, for the options that the documentation uses, and `| grep -i WORD` after it."""
    words = shlex.split(command)
    only: str | None = None
    if "|" in words:
        bar = words.index("|")
        assert words[bar + 1 : bar + 3] == ["grep", "-i"], command
        only, words = words[bar + 3], words[:bar]
    assert words.pop(0) == "curl", command
    method, url, headers, data, shown = "GET", "", dict[str, str](), None, "body"
    while words:
        word = words.pop(0)
        match word:
            case "-s":
                pass
            case "-si" | "-i":
                shown = "all"
            case "-sI":
                method, shown = "HEAD", "head"
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(":")
                headers[name] = value.strip()
            case "--json":
                data = words.pop(0)
                headers["Content-Type"] = "application/json"
                method = "POST" if method == "GET" else method
            case _:
                assert not word.startswith("-"), f"{command}: {word} is not understood here"
                url = word
    host, slash, rest = url.partition("/")
    output = _fetched(base, method, slash + rest, {"Host": headers.pop("Host", host), **headers}, data, shown)
    if only is not None:
        output = "\n".join(line for line in output.splitlines() if only.lower() in line.lower())
    return output


def _fetched(base: str, method: str, target: str, headers: dict[str, str], data: str | None, shown: str) -> str:
    options: dict[str, Any] = {"content": data} if data is not None else {}
    with httpx.Client(base_url=base, trust_env=False) as client:
        # As curl: no encoding is accepted unless it is asked for.
        del client.headers["Accept-Encoding"]
        response = client.request(method, target, headers=headers, **options)
    head = [f"{response.http_version} {response.status_code} {response.reason_phrase}"]
    head += [f"{name.decode()}: {value.decode()}" for name, value in response.headers.raw]
    if shown == "body":
        return response.text
    return "\n".join(head) if shown == "head" else "\n".join([*head, "", response.text])
