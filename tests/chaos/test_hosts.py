"""Hosts in network namespaces are made only where that is possible."""

from __future__ import annotations

import os

import pytest

from chaos.__main__ import _possible
from chaos.hosts import possible


def test_without_root_the_run_over_sentinels_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are run."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not possible()
    assert _possible(["pair", "sentinels", "cluster"]) == ["pair", "cluster"]
    assert "left out: sentinels" in capsys.readouterr().out
