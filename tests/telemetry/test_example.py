"""The example exports to the console when it is asked to, and over OTLP by the standard variables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.helpers.documents import ROOT
from tests.helpers.otlp import receiver
from tests.servers.processes import processes
from tests.servers.waiting import until


@pytest.mark.timeout(120)
def test_spans_are_printed_when_they_are_asked_for(tmp_path: Path) -> None:
    """With `OTEL_TRACES_EXPORTER=console` each span is a line: a miss, and a hit that links to it."""
    environment = {"OTEL_TRACES_EXPORTER": "console", "EXAMPLE_DB": str(tmp_path / "shop.db")}
    with processes("example_app.main:app", 1, environment=environment) as fleet:
        for _ in range(2):
            httpx.get(f"{fleet.urls[0]}/products/43").raise_for_status()
        until(lambda: "cacheinval.result=hit" in fleet.children[0].output, "the hit's line")
        lines = fleet.children[0].output.splitlines()
    miss = next(line for line in lines if "GET /products/{product_id}" in line and "cacheinval.result=miss" in line)
    hit = next(line for line in lines if "GET /products/{product_id}" in line and "cacheinval.result=hit" in line)
    assert f"link={miss.split()[0]}" in hit


@pytest.mark.timeout(120)
def test_an_otlp_endpoint_is_all_it_takes(tmp_path: Path) -> None:
    """With `OTEL_EXPORTER_OTLP_ENDPOINT` spans and metrics of the cache go there; without it nothing is printed."""
    with receiver() as received:
        environment = {
            "OTEL_SERVICE_NAME": "showroom",
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "EXAMPLE_DB": str(tmp_path / "shop.db"),
        }
        with processes("example_app.main:app", 1, environment=environment) as fleet:
            for _ in range(2):
                httpx.get(f"{fleet.urls[0]}/products/43").raise_for_status()
            received.until(
                lambda spans: [span for span in spans if span.attributes.get("cacheinval.result") == "hit"], "the hit"
            )
            until(lambda: ("showroom", "cacheinval.requests") in received.metrics, "the metrics")
            assert "cacheinval." not in fleet.children[0].output


def _shape(line: str) -> tuple[str, ...]:
    """What of a span's line is the same in each run: not ids, times, ages and numbers."""
    words = [
        word
        for word in line.split()
        if not re.match(r"^([0-9a-f]{8}(/[0-9a-f]{8})?|[0-9.]+|cacheinval\.(age|seq)=.*)$", word)
    ]
    return tuple(word.partition("=")[0] if word.startswith("link=") else word for word in words if "http." not in word)


@pytest.mark.timeout(180)
def test_the_traces_of_the_documentation_are_those_of_the_example() -> None:
    """Each span that the page shows is made again by `python -m example_app.traces`, with the same parents and links."""
    ran = subprocess.run(
        [sys.executable, "-m", "example_app.traces"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=150
    )
    parts = ran.stdout.strip().split("\n\n")
    stories = dict(zip(parts[::2], parts[1::2], strict=True))
    page = (ROOT / "docs/telemetry.md").read_text("utf-8")
    shown = re.findall(r"<!-- traces: ([^\n]+) -->\n```text\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 3
    for title, block in shown:
        made = {_shape(line) for line in stories[title].splitlines()}
        for line in block.splitlines():
            assert _shape(line) in made, (line, stories[title])
