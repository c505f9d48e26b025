"""The looks at the log of those who wait for every replica."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.bus.redis import RedisLog
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.ports.log import Standing


class Looks:
    """Records the looks of all replicas: the lines, and how many looks were under way at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[LogEntry] = []
        self.most = 0
        self._under_way = 0
        self._monkeypatch = monkeypatch
        genuine = RedisLog.behind

        async def behind(log: RedisLog, line: LogEntry) -> Standing:
            self.lines.append(line)
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            try:
                return await genuine(log, line)
            finally:
                self._under_way -= 1

        monkeypatch.setattr(RedisLog, "behind", behind)

    def begin_after(self, seconds: float) -> None:
        """Have replicas wait so long for the word of the others before they look."""
        self._monkeypatch.setattr("fastapi_cacheinval.engine.shared_bus._SOON", seconds)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The looks of a test."""
    return Looks(monkeypatch)
