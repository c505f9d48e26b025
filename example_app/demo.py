"""The README's story over real HTTP: ``python -m example_app.demo``.

Starts a Valkey, or uses the Redis that REDIS_URL names, and three replicas of the showroom with uvicorn: the first on
PORT (default 8000), the others on the next ports that are free. Plays the story, and checks each fact it tells: the
exit code is 1 if one is not so, or if the port is taken. With a terminal it then serves until interrupted.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
from itertools import islice
from pathlib import Path

from example_app.main import NAMESPACE
from example_app.open_page import INSPECTOR, OPERATOR
from example_app.replicas import NAMES
from example_app.seed import USERS
from example_app.story import Story
from fastapi_cacheinval import ConfigurationError, HTTPCache, PurgeNotDelivered
from fastapi_cacheinval.testing import Replicas
from fastapi_cacheinval.testing.servers.ports import in_use

COUNT = 3
LAST_PORT = 65535
# Options of uvicorn's command: hits are answered inside the server.
SERVER = {"UVICORN_HTTP": "fastapi_cacheinval.uvicorn:CacheProtocol"}
# Not the URL itself, which may have a password.
YOURS = '"$REDIS_URL"'


class DemoError(Exception):
    """The demo cannot start; the message is for whoever runs it."""


def chosen_ports() -> list[int]:
    """Return PORT, default 8000, if it is a port that nobody listens on, and free ones after it for the others."""
    text = os.environ.get("PORT") or "8000"
    if not (text.isdecimal() and 0 < int(text) <= LAST_PORT):
        raise DemoError(f"PORT={text} is not a port number: choose one from 1 to {LAST_PORT}")
    first = int(text)
    if reason := in_use(first):
        other = first + 1 if first < LAST_PORT else 8000
        raise DemoError(f"port {text}: {reason}. Choose another, say PORT={other}")
    return ports_from(first)


def ports_from(first: int) -> list[int]:
    """Return a port and, for the other replicas, the next ones that nobody listens on."""
    # Round the corner, should it be one of the last.
    after = (*range(first + 1, LAST_PORT + 1), *range(8001, first))
    return [first, *islice((port for port in after if not in_use(port)), COUNT - 1)]


async def cleared(url: str) -> None:
    """Leave nothing of an earlier run in a Redis of yours; raise DemoError where it cannot be reached."""
    try:
        await HTTPCache.from_url(url, namespace=NAMESPACE).clear()
    except PurgeNotDelivered as error:
        raise DemoError(f"the Redis of REDIS_URL cannot be used: {error.reason}") from error
    except ConfigurationError as error:
        raise DemoError(f"REDIS_URL: {error}") from error


def inspector_at(urls: dict[str, str]) -> str:
    """Return where the first replica's inspector is, and who may see it."""
    return f"{urls[NAMES[0]]}{INSPECTOR}  (sign in as {OPERATOR}, password {USERS[OPERATOR][0]})"


def command() -> str:
    """Return how a shell here finds `cacheinval`: by its name, or beside the Python that runs this."""
    found = shutil.which("cacheinval")
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return "cacheinval"
    beside = Path(sys.executable).with_name("cacheinval")
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def to_try(urls: dict[str, str], redis_url: str) -> str:
    """Return what to look at next: the inspector, and three commands that see all replicas."""
    which = f"--url {redis_url} --namespace {NAMESPACE}"
    lines = [
        f"See it run: {inspector_at(urls)}",
        "and in a terminal:",
        *(f"  {command()} {name} {which}" for name in ("stats", "tail", "doctor")),
    ]
    return "\n".join(lines)


async def demonstrate(ports: list[int]) -> bool:
    """Start all, tell the story, and with a terminal serve until interrupted."""
    yours = os.environ.get("REDIS_URL") or None
    if yours is not None:
        await cleared(yours)
    urls = {NAMES[number]: f"http://127.0.0.1:{port}" for number, port in enumerate(ports)}
    with tempfile.TemporaryDirectory(prefix="showroom-") as directory:
        environment = {
            # The story begins with the published prices, so not with a database that somebody keeps.
            "EXAMPLE_DB": str(Path(directory) / "showroom.db"),
            "EXAMPLE_SECRET": secrets.token_hex(32),
            "REPLICAS": " ".join(urls.values()),
            **SERVER,
        }
        starting = Replicas("example_app.main:app", COUNT, environment=environment, redis_url=yours, ports=ports)
        async with starting as replicas:
            where = "  ".join(f"{name} {url}" for name, url in urls.items())
            what = "the Redis that you named" if yours else f"a Valkey at {replicas.redis_url}"
            print(f"Showroom: {len(USERS)} users, an SQLite file, {COUNT} replicas over {what}.\nReplicas: {where}")
            print(
                f"Its cache, while it works: {inspector_at(urls)}\nLeave that page open: in the story Redis is killed."
            )
            told = await Story(replicas, urls, own_redis=yours is None).play()
            print(f"\n{to_try(urls, replicas.redis_url if yours is None else YOURS)}")
            if told and sys.stdin.isatty() and sys.stdout.isatty():
                print(f"\nThe showroom is open at {where}\n(the API at {urls[NAMES[0]]}/docs). Ctrl-C closes it.")
                await asyncio.Event().wait()
    return told


def main() -> int:
    """Play the story; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        told = asyncio.run(demonstrate(chosen_ports()))
    except (DemoError, AssertionError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 0
    return 0 if told else 1


if __name__ == "__main__":
    raise SystemExit(main())
