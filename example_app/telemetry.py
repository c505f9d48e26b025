"""Exporting to the console, when it is asked for by OpenTelemetry's standard variables.

``OTEL_TRACES_EXPORTER=console`` and ``OTEL_METRICS_EXPORTER=console`` print one line for each span and metric. An OTLP
endpoint, ``OTEL_EXPORTER_OTLP_ENDPOINT``, is FastAPI's own to export to.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def print_to_console() -> None:
    """Set providers that print what is asked for; nothing where nothing is, or the SDK is not installed."""
    asked = {signal for signal in ("TRACES", "METRICS") if os.environ.get(f"OTEL_{signal}_EXPORTER") == "console"}
    if not asked:
        return
    try:
        from example_app import console  # noqa: PLC0415 - the SDK is no part of the example's own needs
    except ImportError:
        print("console export needs the SDK: pip install --group telemetry", file=sys.stderr)
        return
    console.set_providers(asked)


def config() -> Any:
    """FastAPI's own telemetry: over OTLP where the standard variables name an endpoint."""
    return {"auto_configure": True, "logs": False}
