"""The page about trouble has a row for whatever an operator can see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_cacheinval.core.statistics import MUTATION_ANSWERS
from tests.helpers.documents import ROOT

PACKAGE = ROOT / "fastapi_cacheinval"
PAGE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
# What helps tests and the command line talk to developers, and not to a server's log.
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if not {"testing", "cli"} & set(file.parts)]
TREES = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text("utf-8")) for file in FILES}

LEVELS = {"info", "warning", "error", "exception", "critical", "log"}
# Where a line is logged that another function has made: the functions that make it.
MADE_BY = {
    "bus/redis.py": [("core/confirming.py", "doubt_about")],
    "contrib/sqlalchemy/delivery.py": [("errors.py", "ReplicasUnknown")],
    "engine/neighbours.py": [("engine/neighbours.py", "made_for_an_app"), ("engine/neighbours.py", "purges")],
    "engine/purger.py": [("errors.py", "PurgeNotDelivered")],
    "framework/app_context.py": [
        ("framework/notices.py", "unshared_partitions"),
        ("routes/audit.py", "notes_of"),
        ("routes/audit.py", "warnings_of"),
        ("routes/other_ways.py", "_added"),
        ("routes/summary.py", "unmatched_tags"),
    ],
    "framework/exchange.py": [],  # the first argument of `log_trouble`
    "framework/mutation.py": [("errors.py", "ReplicasUnknown")],
    "framework/parts.py": [],  # an error of the start
    "routes/table.py": [("routes/websockets.py", "without_cached")],
    "sources/seldom.py": [],  # the first argument of `refuse`
    "uvicorn.py": [("uvicorn.py", "_find")],
}
# Functions that are given the reason why a response is not stored or a request not looked up.
GIVEN = {
    "_bypass",
    "bypassed",
    "Refuse",
    "seen_by",
    "outcome",
    "_let_through",
    "unanswered",
    "_plainly",
    "_gives_up",
    "_refuse",
}
# Functions that return it.
ANSWER = {
    "accept",
    "refusal",
    "_forbidden",
    "refused_because",
    "_against_a_guess",
    "forbids",
    "_closed_to",
    "_not_ours",
    "_why_away",
    "_declined",
    "allowing",
    "credential",
}
# Answers to mutations that have another word in `Cache-Status`, or none.
OTHERWISE_NAMED = {"done", "late", "queued", "refused"}
TOKEN = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def text_of(node: ast.AST | None) -> str | None:
    """A string of the code, with three dots for each part that varies; None for what is no string."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%(?:\.\d+)?[srdfg]", "…", text)
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) or "…" for part in parts)
        case ast.BinOp(left=left, op=ast.Add()):
            return f"{text_of(left)}…"
        case _:
            return None


def calls(tree: ast.AST) -> Iterator[tuple[str, str, list[ast.expr]]]:
    """The owner, the name and the arguments of each call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            yield owner, name, node.args


def within(file: str, name: str) -> ast.AST:
    """The function or class of this name."""
    [found] = [
        node
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
    ]
    return found


def sentences(tree: ast.AST) -> Iterator[str]:
    """The longer texts of a function, without its documentation and what stands inside of another text."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        for part in ast.walk(node)
        if part is not node
    }
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = text_of(node)
        if text is not None and id(node) not in inner | parts and len(text) > 30:
            yield text


def logged() -> tuple[set[str], set[str]]:
    """Every message at INFO and above, and the files that log what another function has made."""
    said, bare = set[str](), set[str]()
    for file, tree in TREES.items():
        for owner, name, args in calls(tree):
            if args and name in LEVELS and "logger" in owner and "access" not in owner:
                text = text_of(args[1] if name == "log" else args[0])
                if text is None or not re.search(r"[a-z]", text):
                    bare.add(file)
                else:
                    said.add(text)
            elif args and (owner, name) == ("warnings", "warn"):
                said.add(text_of(args[0]) or "")
            elif args and (name == "log_trouble" or (name == "refuse" and owner == "self")):
                said.add(text_of(args[0]) or _constant(file, args[0]))
    for made in MADE_BY.values():
        for file, function in made:
            said |= set(sentences(within(file, function)))
    return said - {""}, bare


def _constant(file: str, name: ast.expr) -> str:
    """The text that a name stands for: assigned in that file, or in the module that it comes from."""
    wanted = ast.unparse(name)
    for tree in (TREES[file], *TREES.values()):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == wanted:
                text = text_of(node.value)
                if text is not None and " " in text:
                    return text
    return ""


def details() -> set[str]:
    """Every word that `detail` of `Cache-Status`, or of a metric, can have."""
    found = set[str](MUTATION_ANSWERS) - OTHERWISE_NAMED
    for tree in TREES.values():
        for node in ast.walk(tree):
            found |= _given(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in ANSWER:
                found |= _answered(node)
    return found


def _given(node: ast.AST) -> set[str]:
    """The reasons that a call or an assignment names."""
    match node:
        case ast.keyword(arg="detail" | "closed", value=value):
            return _words(value)
        case ast.Assign(targets=[ast.Name(id="detail" | "SLOW")], value=value):
            return _words(value)
        case ast.Call(func=ast.Name(id="Go"), args=[_, _, _, value]):
            return _words(value)
        case ast.Call(func=func, args=args) if ast.unparse(func).rpartition(".")[2] in GIVEN:
            return set().union(*map(_words, args))
        case _:
            return set()


def _answered(function: ast.AST) -> set[str]:
    """The reasons that a function returns, or makes its answer of."""
    found = set[str]()
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            found |= _words(node.value)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
            found |= _words(node.value)
    return found


def _words(value: ast.AST) -> set[str]:
    match value:
        case ast.Constant(value=str(text)) if TOKEN.fullmatch(text):
            return {text}
        case ast.IfExp(body=body, orelse=other):
            return _words(body) | _words(other)
        case ast.BoolOp(values=values):
            return set().union(*map(_words, values))
        case ast.Call(func=ast.Attribute(value=ast.Dict(values=values))):
            return set().union(*map(_words, values))
        case _:
            return set()


def rows(*, under: str) -> list[str]:
    """The first cells of the tables below a heading of the second level."""
    [section] = re.findall(rf"^## {re.escape(under)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `(?!detail`)([^`]+)` \|", section, re.MULTILINE)


SAID, BARE = logged()
LINES = rows(under="Lines of the log")


def matches(row: str, message: str) -> bool:
    """Whether a row shows a message: its dots stand for anything."""
    return re.fullmatch(".*".join(map(re.escape, row.split("…"))), message, re.DOTALL) is not None


def test_the_messages_are_found() -> None:
    """The reader of the code finds messages of each way in which the package logs."""
    everything = "\n".join(SAID)
    for part in (
        "out of touch with the purge log",
        "is too few for … servers",
        "stopped with … purge(s) that could not be written",
        "a forward raised",
        "is one tag, and no pattern",
        "CacheProtocol answers nothing itself",
        "inherits a cached() with the cover",
        "cannot read message",
    ):
        assert part in everything, part
    assert len(SAID) > 60


def test_whoever_logs_the_text_of_others_is_known() -> None:
    """A new place that logs what it is given has to say where that is made."""
    assert set(MADE_BY) == BARE


@pytest.mark.parametrize("message", sorted(SAID))
def test_every_message_has_a_row(message: str) -> None:
    """Each line that the package logs at INFO or above is on the page."""
    assert [row for row in LINES if matches(row, message)] != []


@pytest.mark.parametrize("row", LINES)
def test_every_row_is_of_a_message(row: str) -> None:
    """No row is left of a message that has gone."""
    assert len(row.replace("…", "")) >= 10
    assert [message for message in SAID if matches(row, message)] != []


def test_every_detail_has_a_row_and_no_other_word_has() -> None:
    """The two tables of `detail` hold the words that the code gives, each once."""
    shown = rows(under="The response was not stored") + rows(under="The cache was not asked")
    found = details()
    assert {"set-cookie", "slow", "in-flight", "superseded", "l2-unavailable", "own-response", "behind"} <= found
    assert sorted(shown) == sorted(found)


def test_every_row_is_whole() -> None:
    """Each row has three cells with words in them."""
    for line in PAGE.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 3, line
            assert all(cells), line


def test_the_page_is_found_from_operations() -> None:
    """The two pages for operators lead to each other."""
    assert "(troubleshooting.md)" in Path(ROOT / "docs/operations.md").read_text("utf-8")
