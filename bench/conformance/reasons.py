"""Why a required or optimal test of the suite fails with the default options."""

from __future__ import annotations

__all__ = ["REASONS"]

REASONS: dict[str, str] = {}
