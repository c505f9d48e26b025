"""The page on apps that have users: its commands, from an empty folder to a hit on the second replica."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from tests.helpers.documents import EXAMPLES, LOCAL_REDIS, ROOT, blocks
from tests.servers import Valkey, until
from tests.servers.ports import free_port

PAGE = ROOT / "docs" / "users.md"
ALICE, BOB = ({"Authorization": f"Bearer token-of-{name}"} for name in ("alice", "bob"))
# Of which most is the start of two servers.
SECONDS = 60.0


def commands(ports: tuple[int, int], redis: str) -> str:
    """The page's commands, with other ports and another address; what they install is there already."""
    [block] = [
        block for block in blocks(None, language="text") if block.page == PAGE and "uvicorn app:app" in block.text
    ]
    text = block.text.replace(LOCAL_REDIS, redis)
    installs, _, rest = text.partition("\n")
    assert installs == "pip install fastapi-cacheinval uvicorn"
    for documented, port in zip(("8000", "8001"), ports, strict=True):
        assert rest.count(documented) == 1
        rest = rest.replace(documented, str(port))
    return rest


def test_the_commands_lead_from_an_empty_folder_to_a_users_page_on_two_replicas(
    redis_server: Valkey, tmp_path: Path
) -> None:
    """The shell runs them as they stand: a page per user, a hit on the other replica, and no page without a token."""
    began = time.monotonic()
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "app.py").write_text((EXAMPLES / "users.py").read_text("utf-8"))
    ports = free_port(), free_port()
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        ["sh", "-ec", f"{commands(ports, redis_server.url)}\nwait"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            one, other = (f"http://127.0.0.1:{port}/orders" for port in ports)
            with httpx.Client(trust_env=False, headers={"Host": "shop.example"}) as client:

                def up(url: str) -> bool:
                    with suppress(httpx.TransportError):
                        return client.get(url).status_code == 401
                    return False

                until(lambda: up(one) and up(other), "both replicas")
                assert client.get(one, headers=ALICE).json() == {"alice": []}

                def shared() -> bool:
                    answer = client.get(other, headers=ALICE)
                    assert answer.json() == {"alice": []}
                    return "hit" in answer.headers["cache-status"]

                until(shared, "a hit on the other replica")
                assert client.get(other, headers=BOB).json() == {"bob": []}
                assert client.get(other).status_code == 401
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
        assert shell.stderr is not None
        said = shell.stderr.read()
    seconds = time.monotonic() - began
    assert seconds < SECONDS
    [shown] = [block.text for block in blocks(None, language="text") if block.page == PAGE and "INFO:" in block.text]
    for line in shown.splitlines():
        assert said.count(line) == 2, said


def test_as_many_statements_are_the_caches_as_the_page_says() -> None:
    """Those that name something of the package, counted in the file."""
    tree = ast.parse((EXAMPLES / "users.py").read_text("utf-8"))
    names = {"cache", "cached", "CacheMiddleware", "HTTPCache", "PartitionBy", "fastapi_cacheinval"}

    def used(node: ast.stmt) -> bool:
        parts = [node] if not isinstance(node, ast.FunctionDef) else node.decorator_list
        found = {each.id for part in parts for each in ast.walk(part) if isinstance(each, ast.Name)}
        return bool(found & names) or (isinstance(node, ast.ImportFrom) and node.module in names)

    counted = sum(map(used, tree.body))
    word = {3: "Three", 4: "Four", 5: "Five"}[counted]
    assert re.search(rf"^{word} statements of the file are the cache's", PAGE.read_text("utf-8"), re.MULTILINE)
