"""The recipes for Prometheus: what it scrapes has the names that the dashboard and the alert rules ask for."""

from __future__ import annotations

import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.documents import EXAMPLES, served
from tests.telemetry.test_dashboard import in_prometheus
from tests.telemetry.test_metrics import CONTRACT

KNOWN = {
    series: {attribute.replace(".", "_") for attribute in attributes}
    for name, (kind, unit, attributes) in CONTRACT.items()
    for series in in_prometheus(name, kind, unit)
}
# What the exporter and the format add.
OTHERS = {"le", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}


def scraped(example: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scrape of an example gives after one miss and two hits, by name and labels."""
    with served(EXAMPLES / example) as base, httpx.Client(base_url=base, follow_redirects=True) as client:
        for _ in range(3):
            client.get("/page").raise_for_status()
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (
            _named(sample.name),
            frozenset((name, value) for name, value in sample.labels.items() if name not in OTHERS),
        ): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name.startswith("cacheinval_") and not sample.name.endswith("_created")
    }


def _named(series: str) -> str:
    """The name that later exporters give: the oldest wrote units into it as they are, `{request}`, `s` and `By`."""
    series = re.sub(r"__[a-z]+_(?=_|$)", "", series)
    return re.sub(r"_By(?=_|$)", "_bytes", re.sub(r"_s(?=_|$)", "_seconds", series))


@pytest.mark.parametrize("example", ["prometheus.py", "prometheus_alone.py"])
def test_a_scrape_has_the_names_of_the_contract(example: str) -> None:
    """Each series and label is one that the dashboard knows, with OpenTelemetry and without; the counts are right."""
    found = scraped(example)
    for name, labels in found:
        assert name in KNOWN
        assert {label for label, _ in labels} <= KNOWN[name]
    answered: dict[str, float] = {}
    for (name, labels), value in found.items():
        if name == "cacheinval_requests_total" and value:
            result = dict(labels)["cacheinval_result"]
            answered[result] = answered.get(result, 0) + value
    assert answered == {"miss": 1, "hit": 2}
