"""What can be followed across replicas, from what three real processes export over OTLP."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import pytest

from tests.helpers.otlp import Exported, Receiver, receiver
from tests.servers import Valkey
from tests.servers.processes import processes
from tests.servers.waiting import until

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROUTE = "/products/{number}"


class Replicas:
    """Three processes, `a`, `b` and `c`, and what they have exported."""

    def __init__(self, received: Receiver, urls: dict[str, str]) -> None:
        self.received = received
        self._urls = urls

    def ask(self, name: str, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """One request to one replica, under the name that all have."""
        answer = httpx.request(method, self._urls[name] + path, headers={"host": "shop", **headers})
        answer.raise_for_status()
        return answer

    def statistics(self, name: str) -> dict[str, Any]:
        """What one's cache reports."""
        return dict(self.ask(name, "/statistics").json())

    def spans(self, name: str, of: str = "", **attributes: object) -> list[Exported]:
        """The spans of a name that have come, of one replica or of all."""
        wanted = {f"cacheinval.{key}": value for key, value in attributes.items()}
        return [
            span
            for span in list(self.received.spans)
            if span.name == name and of in ("", span.service) and wanted.items() <= span.attributes.items()
        ]

    def wait_for(self, name: str, of: str = "", **attributes: object) -> Exported:
        """The first such span, once it has come."""
        what = f"{name} of {of or 'anybody'} with {attributes}"
        return self.received.until(lambda _: self.spans(name, of, **attributes), what)[0]


@pytest.fixture(scope="module")
def replicas(shared_valkey: Valkey) -> Generator[Replicas]:
    """Three processes of one app over one server, with the standard variables of OpenTelemetry set."""
    shared_valkey.clear()
    with receiver() as received, ExitStack() as stack:
        urls = {}
        for name in "abc":
            environment = {
                "SERVED_REDIS": shared_valkey.url,
                "OTEL_SERVICE_NAME": name,
                "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "OTEL_METRIC_EXPORT_INTERVAL": "200",
            }
            fleet = stack.enter_context(processes("tests.telemetry.served:app", 1, environment=environment))
            urls[name] = fleet.urls[0]
        yield Replicas(received, urls)


def _first_fill(replicas: Replicas, of: str, after: int) -> Exported:
    def find(spans: list[Exported]) -> list[Exported]:
        fills = [
            span
            for span in spans
            if span.service == of
            and span.name == f"GET {ROUTE}"
            and span.attributes.get("cacheinval.result") == "miss"
            and span.began > after
        ]
        return sorted(fills, key=lambda span: span.began)

    return replicas.received.until(find, f"a fill of {of} after the purge")[0]


@pytest.mark.timeout(120)
def test_a_mutation_is_followed_to_the_applies_and_to_the_first_fresh_fill(replicas: Replicas) -> None:
    """From the spans alone: the PUT on A, its purge, the applies on B and C, the fill on B, the hit from L2 on C."""
    before = {}
    for name in "abc":
        before[name] = replicas.ask(name, "/products/1").json()
    assert len({answer["at"] for answer in before.values()}) == 1
    replicas.ask("a", "/products/1", "PUT", traceparent=CALLER)

    mutation = replicas.wait_for(f"PUT {ROUTE}", "a")
    assert mutation.trace == CALLER.split("-")[1]
    purge = replicas.wait_for("cacheinval.invalidate", "a")
    assert (purge.trace, purge.parent) == (mutation.trace, mutation.id)
    applies = {name: replicas.wait_for("cacheinval.apply", name) for name in "bc"}
    for apply in applies.values():
        assert apply.links == ((mutation.trace, purge.id),)
        assert apply.trace != mutation.trace
        assert apply.attributes["cacheinval.seq"] == purge.attributes["cacheinval.seq"]
        assert apply.attributes["cacheinval.soft"] is False
    # Who made it has applied it before its response went out, and needs no message for it.
    assert replicas.spans("cacheinval.apply", "a") == []

    after = replicas.ask("b", "/products/1").json()
    assert after["at"] > before["b"]["at"]
    fill = _first_fill(replicas, "b", applies["b"].ended)
    assert fill.attributes["cacheinval.reason"] == "uri-miss"
    written = replicas.received.until(
        lambda _: [span for span in replicas.spans("cacheinval.l2.set", "b") if span.trace == fill.trace], "the write"
    )[0]
    assert written.parent == fill.id

    assert replicas.ask("c", "/products/1").json() == after
    hit = replicas.wait_for(f"GET {ROUTE}", "c", result="hit", tier="l2", age=0)
    if hit.began < fill.began:
        hit = replicas.received.until(
            lambda _: [s for s in replicas.spans(f"GET {ROUTE}", "c", tier="l2") if s.began > fill.began], "the hit"
        )[0]
    assert hit.links == ((fill.trace, fill.id),)
    read = [span for span in replicas.spans("cacheinval.l2.get", "c") if span.trace == hit.trace]
    assert [span.attributes["cacheinval.result"] for span in read] == ["hit"]


@pytest.mark.timeout(120)
def test_metrics_tell_of_applies_and_of_how_long_they_took(replicas: Replicas) -> None:
    """Purges of A are counted as published there, as applied on B and C, and took between nothing and a second."""
    metrics = replicas.received.metrics

    def purges(of: str) -> dict[str, int]:
        metric = metrics.get((of, "cacheinval.invalidations"))
        return (
            {}
            if metric is None
            else {
                next(pair.value.string_value for pair in point.attributes if pair.key == "cacheinval.event"): int(
                    point.as_int
                )
                for point in metric.sum.data_points
            }
        )

    for _ in range(5):
        replicas.ask("a", "/products/2", "PUT")
    total = replicas.statistics("a")["applied"]

    def counted(of: str) -> bool:
        return sum(purges(of).values()) == total

    until(partial(counted, "a"), "the count of A")
    assert purges("a") == {"published": total}
    for name in "bc":
        until(partial(counted, name), f"the count of {name}")
        (point,) = metrics[name, "cacheinval.propagation.duration"].histogram.data_points
        assert point.count == total
        assert 0 <= point.sum < total
        (lease,) = metrics[name, "cacheinval.lease.remaining"].gauge.data_points
        assert 0 < lease.as_double <= 2


@pytest.mark.timeout(120)
def test_our_own_traffic_is_not_traced(replicas: Replicas) -> None:
    """With an instrumentation of redis-py installed, no heartbeat, lookup, write or purge of ours makes a span of it."""
    for name in "abc":
        for path in ("/products/3", "/products/3"):
            replicas.ask(name, path)
    replicas.ask("a", "/products/3", "PUT")
    for name in "abc":
        replicas.wait_for("GET /statistics" if replicas.statistics(name) else "", name)
    assert {span.scope for span in replicas.received.spans} == {"fastapi", "fastapi_cacheinval"}


@pytest.mark.timeout(120)
def test_nothing_private_is_exported(replicas: Replicas) -> None:
    """No tag, key or query value is in any name, attribute or metric of ours."""
    replicas.ask("a", "/products/4?token=very-private")
    replicas.ask("b", "/products/4?token=very-private")
    replicas.ask("a", "/products/4", "PUT")
    replicas.wait_for("cacheinval.apply", "b")
    replicas.wait_for("GET /statistics" if replicas.statistics("a") else "", "a")
    ours = [span for span in replicas.received.spans if span.scope == "fastapi_cacheinval"]
    assert ours
    told = repr([(span.name, span.attributes) for span in ours]) + repr(replicas.received.metrics)
    told += repr(
        [
            {key: value for key, value in span.attributes.items() if key.startswith("cacheinval.")}
            for span in replicas.received.spans
        ]
    )
    for private in ("secret-tag", "very-private", "/products/4"):
        assert private not in told
