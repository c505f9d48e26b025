"""The example's SQLite file under several processes, as its replicas share it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[2]

OPEN = """
import asyncio
from example_app.main import app, lifespan

async def main():
    async with lifespan(app):
        pass

asyncio.run(main())
"""

COUNT_UP = """
import asyncio, sys
from example_app.db import database
from example_app.models import Product

async def main():
    await database.open()
    for _ in range(30):
        async with database.session(writes=True) as session:
            product = await session.get(Product, 1)
            product.stock += 1
            await session.commit()
        async with database.session() as session:
            assert (await session.get(Product, 1)).stock >= 30
    await database.close()

asyncio.run(main())
"""


def run_at_once(script: str, path: Path, count: int) -> None:
    """So many processes of a script on one database; all have to end well."""
    environment = {**os.environ, "EXAMPLE_DB": str(path)}
    running = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    ended = [(process.communicate(timeout=50)[1], process.returncode) for process in running]
    assert [status for _, status in ended] == [0] * count, "\n".join(error for error, _ in ended)


def test_processes_that_start_at_once_fill_the_database_once(tmp_path: Path) -> None:
    """Tables, cars and users are there once, whoever was first, and readers need not wait for the writer (WAL)."""
    path = tmp_path / "shop.db"
    run_at_once(OPEN, path, 4)
    with closing(sqlite3.connect(path)) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("product", "user")]
        assert counts == [47, 3]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_writers_in_several_processes_wait_for_each_other(tmp_path: Path) -> None:
    """Who reads a row and changes it then loses nothing and is never told that the database is locked."""
    path = tmp_path / "shop.db"
    run_at_once(OPEN, path, 1)
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("UPDATE product SET stock = 30 WHERE id = 1 RETURNING stock").fetchone()[0]
        connection.commit()
    run_at_once(COUNT_UP, path, 3)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT stock FROM product WHERE id = 1").fetchone() == (before + 90,)
