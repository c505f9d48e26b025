"""The dashboard asks for metrics and attributes that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.helpers.documents import ROOT
from tests.telemetry.test_metrics import CONTRACT, busy, exercise

pytestmark = pytest.mark.anyio

DASHBOARD: Any = json.loads((ROOT / "docs/grafana/fastapi-cacheinval.json").read_text("utf-8"))
UNITS = {"s": "_seconds", "By": "_bytes"}
SUFFIXES = {
    "Counter": ("_total",),
    "UpDownCounter": ("",),
    "Gauge": ("",),
    "Histogram": ("_bucket", "_count", "_sum"),
}
# What Prometheus and its scraping add.
OTHERS = {"job", "instance", "le"}


def in_prometheus(name: str, kind: str, unit: str) -> list[str]:
    """What Prometheus calls the series of a metric of OpenTelemetry."""
    stem = name.replace(".", "_")
    # Units in braces are annotations, and the name of one is not repeated.
    stem += "" if stem.endswith(UNITS.get(unit, "")) else UNITS[unit]
    return [stem + suffix for suffix in SUFFIXES[kind]]


def queries() -> list[tuple[str, str]]:
    """Title and expression of every query."""
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


async def test_every_query_names_a_real_metric_and_real_attributes() -> None:
    """Each series and label of the dashboard is one that an app reports, by Prometheus' names for them."""
    shop = busy()
    await exercise(shop)
    reported = {metric.name for metric in shop.recorded.metrics() if metric.name.startswith("cacheinval.")}
    # What one process without a shared log cannot report is in the contract, which others check.
    assert reported <= set(CONTRACT)
    labels = {
        series: {attribute.replace(".", "_") for attribute in attributes}
        for name, (kind, unit, attributes) in CONTRACT.items()
        for series in in_prometheus(name, kind, unit)
    }
    assert queries()
    for title, query in queries():
        series = set(re.findall(r"\bcacheinval_\w+(?=\{)", query))
        assert series
        assert series <= set(labels), (title, series)
        used = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query))
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            used |= {label.strip() for label in grouped.split(",")}
        assert used <= set.intersection(*(labels[each] for each in series)) | OTHERS, title


def test_every_metric_is_on_the_dashboard() -> None:
    """No metric of the contract is left out."""
    asked = " ".join(query for _, query in queries())
    for name, (kind, unit, _) in CONTRACT.items():
        assert any(series in asked for series in in_prometheus(name, kind, unit)), name


def test_grafana_can_import_it() -> None:
    """It has what an import needs: a title, an id of its own, panels with ids and places, and a source to choose."""
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])
    assert [each["type"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "query"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
