"""The alert rules fire where there is trouble, each for its own, and are silent where there is none.

No Prometheus runs here: `tests.helpers.promql` reads as much of the rules' language as they use. What is evaluated are
the points that an SDK collects from the real instruments, under Prometheus' names for them.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import NumberDataPoint

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.statistics import SourceState, Statistics
from fastapi_cacheinval.telemetry.gauges import watch
from fastapi_cacheinval.telemetry.instruments import Instruments
from tests.helpers.documents import ROOT
from tests.helpers.fleet import eventually, fleet
from tests.helpers.promql import Samples, evaluate, seconds_of
from tests.helpers.telemetry import Recorded
from tests.servers import Valkey
from tests.telemetry.test_dashboard import in_prometheus
from tests.telemetry.test_metrics import CONTRACT

pytestmark = pytest.mark.anyio

_yaml: Any = importlib.import_module("yaml")
RULES: list[dict[str, Any]] = _yaml.safe_load(
    (ROOT / "docs/grafana/fastapi-cacheinval-alerts.yaml").read_text("utf-8")
)["groups"][0]["rules"]
STEP = 15.0


class Watching:
    """Scrapes what an SDK has recorded, every fifteen seconds of a time of its own, and evaluates the rules."""

    def __init__(self, recorded: Recorded, instance: str = "a") -> None:
        self._recorded = [(instance, recorded)]
        self._samples = Samples()
        self._since: dict[str, float] = {}
        self.at = 0.0
        self.fired: set[str] = set()

    def also(self, recorded: Recorded, instance: str) -> None:
        """Scrape another replica as well."""
        self._recorded.append((instance, recorded))

    def scrape(self, times: int = 1) -> set[str]:
        """Take samples so many times, and give the names of the alerts that fire at the last."""
        for _ in range(times):
            self.at += STEP
            for instance, recorded in self._recorded:
                self._take(instance, recorded)
            self._evaluate()
        return {name for name, since in self._since.items() if self._fires(name, since)}

    def _take(self, instance: str, recorded: Recorded) -> None:
        for metric in recorded.metrics():
            if metric.name not in CONTRACT:
                continue
            kind, unit, _ = CONTRACT[metric.name]
            names = in_prometheus(metric.name, kind, unit)
            for point in metric.data.data_points:
                labels = {name.replace(".", "_"): str(value) for name, value in point.attributes.items()}
                labels |= {"job": "shop", "instance": instance}
                if isinstance(point, NumberDataPoint):
                    self._samples.add(self.at, names[0], labels, point.value)
                    continue
                total = 0
                for bound, count in zip((*point.explicit_bounds, "+Inf"), point.bucket_counts, strict=True):
                    total += count
                    self._samples.add(self.at, names[0], {**labels, "le": str(bound)}, total)

    def _evaluate(self) -> None:
        for rule in RULES:
            name = rule["alert"]
            if evaluate(rule["expr"], self._samples, self.at):
                self._since.setdefault(name, self.at)
                if self._fires(name, self._since[name]):
                    self.fired.add(name)
            else:
                self._since.pop(name, None)

    def _fires(self, name: str, since: float) -> bool:
        wait = next(rule["for"] for rule in RULES if rule["alert"] == name)
        return self.at - since >= seconds_of(wait)


class Planted:
    """A replica whose numbers a test says, through the instruments that a cache reports with."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        meter = self.recorded.meter_provider.get_meter("fastapi_cacheinval")
        self.tell = Instruments(meter)
        healthy = HTTPCache().statistics()
        self.now: Statistics = replace(
            healthy,
            connected=True,
            lease_remaining=1.5,
            max_refreshes=64,
            sources={"orders": SourceState(running=True, connected=True)},
        )
        watch(self.recorded.meter_provider, meter, self, self.tell.requests)

    def statistics(self) -> Statistics:
        """What the gauges read."""
        return self.now

    def say(self, **changed: Any) -> None:
        """Change fields of the statistics."""
        self.now = replace(self.now, **changed)

    def source(self, **changed: Any) -> None:
        """Change fields of the source's state."""
        state: Any = self.now.sources["orders"]
        self.say(sources={"orders": replace(state, **changed)})

    def count(self, kind: str, name: str, number: int) -> None:
        """Add to counts of the statistics."""
        counts = dict(getattr(self.now, kind))
        counts[name] = counts.get(name, 0) + number
        self.say(**{kind: counts})

    def traffic(self) -> None:
        """What happens in fifteen healthy seconds."""
        for _ in range(100):
            self.tell.answered(Outcome(Result.HIT, "l1"), "/a")
        for _ in range(20):
            self.tell.answered(Outcome(Result.MISS), "/a")
            self.tell.l2("hit")
            self.tell.l2_took("get", 0.001, "done")
            self.tell.refreshed("stored")
            self.tell.purged("applied", 1, soft=False, seconds=0.002)
        self.count("mutations", "done", 20)
        self.source(received=self.now.sources["orders"].received + 5)  # type: ignore[attr-defined]


Plant = Callable[[Planted], None]


def _repeated(act: Callable[[], object], times: int = 20) -> None:
    for _ in range(times):
        act()


TROUBLE: dict[str, Plant] = {
    "CacheinvalOutOfTouch": lambda it: it.say(connected=False),
    "CacheinvalNoLease": lambda it: it.say(lease_remaining=-5.0),
    "CacheinvalQueuedPurges": lambda it: it.say(queue_age=61.0, queue_length=3),
    "CacheinvalMutationsUnpurged": lambda it: it.count("mutations", "queued", 1),
    "CacheinvalLatePurges": lambda it: it.count("mutations", "late", 10),
    "CacheinvalResets": lambda it: it.count("reset_causes", "new-term", 1),
    "CacheinvalLagging": lambda it: it.say(lag=2),
    "CacheinvalMessagesLost": lambda it: _repeated(lambda: it.tell.purged("missed", 1, soft=False), 40),
    "CacheinvalAppFails": lambda it: _repeated(lambda: it.tell.answered(Outcome(Result.MISS, detail="failed"), "/a")),
    "CacheinvalStaleStandsIn": lambda it: _repeated(
        lambda: it.tell.answered(Outcome(Result.STALE, "l1", Reason.STALE), "/a")
    ),
    "CacheinvalRefreshesFail": lambda it: _repeated(lambda: it.tell.refreshed("timeout"), 40),
    "CacheinvalRefreshesFull": lambda it: it.say(refreshing=64),
    "CacheinvalWaiting": lambda it: it.say(waiting=101),
    "CacheinvalSharedTierFails": lambda it: _repeated(lambda: it.tell.l2("unavailable")),
    "CacheinvalSharedTierUnreadable": lambda it: _repeated(lambda: it.tell.l2("unreadable-seal")),
    "CacheinvalSharedTierSlow": lambda it: _repeated(lambda: it.tell.l2_took("get", 0.4, "failed")),
    "CacheinvalOff": lambda it: it.say(enabled=False),
    "CacheinvalSourceAway": lambda it: it.source(connected=False),
    "CacheinvalSourceBehind": lambda it: it.source(lag=5_000),
    "CacheinvalSourceRefuses": lambda it: it.source(refused=it.now.sources["orders"].refused + 1),  # type: ignore[attr-defined]
}


def test_every_rule_has_its_trouble_and_says_what_to_do() -> None:
    """No rule is untested, and each has a severity, a summary and an action."""
    assert {rule["alert"] for rule in RULES} == set(TROUBLE)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["action"]) > 20


@pytest.mark.parametrize("alert", TROUBLE)
def test_each_alert_fires_for_its_trouble_and_ends_with_it(alert: str) -> None:
    """Ten quiet minutes fire nothing, trouble fires its own alert and no other, and half an hour later it is over."""
    planted = Planted()
    watching = Watching(planted.recorded)
    for _ in range(40):
        planted.traffic()
        assert watching.scrape() == set()
    healthy = planted.now
    for _ in range(60):
        planted.traffic()
        TROUBLE[alert](planted)
        watching.scrape()
    assert watching.fired == {alert}
    assert watching.scrape() == {alert}
    quiet = {"connected", "lease_remaining", "queue_age", "queue_length", "lag", "refreshing", "waiting", "enabled"}
    planted.say(**{name: getattr(healthy, name) for name in quiet})
    planted.source(connected=True, lag=0)
    for _ in range(120):
        planted.traffic()
        watching.scrape()
    assert watching.scrape() == set()


async def test_they_are_silent_while_replicas_serve_and_purge(redis_server: Valkey) -> None:
    """Two replicas under reads, writes, refreshes, purges of all kinds, errors of clients and cancelled requests."""
    recorded, other = Recorded(), Recorded()
    async with (
        fleet(redis_server.url, 1, staleness_bound=6.0, redis_timeout=2.0, **recorded.providers) as (a,),
        fleet(redis_server.url, 1, staleness_bound=6.0, redis_timeout=2.0, **other.providers) as (b,),
    ):
        watching = Watching(recorded)
        watching.also(other, "b")
        for turn in range(60):
            for number in range(8):
                await asyncio.gather(*(node.ask(f"/items/{number}") for node in (a, b)))
            await a.ask(f"/items/{turn % 8}", method="PUT")
            await b.cache.invalidate("items", soft=turn % 2 == 0)
            await a.ask("/nothing/here")
            call = b.call("/items/cancelled")
            await asyncio.sleep(0)
            call.task.cancel()
            await asyncio.gather(call.task, return_exceptions=True)
            await eventually(lambda: a.statistics.lag == b.statistics.lag == 0, "both have read all")
            watching.scrape()
    assert watching.fired == set()


async def test_a_real_outage_fires_what_it_should(redis_server: Valkey) -> None:
    """While Redis is away its alerts fire, and no other; when it is back, the reset is told."""
    recorded = Recorded()
    async with fleet(redis_server.url, 1, staleness_bound=4.0, redis_timeout=1.0, **recorded.providers) as (a,):
        watching = Watching(recorded)
        for _ in range(20):
            await a.ask()
            await a.ask(method="PUT")
            watching.scrape()
        assert watching.fired == set()
        redis_server.kill()
        await a.out_of_touch()
        for _ in range(20):
            await a.ask()
            await a.ask(method="PUT")
            watching.scrape()
        assert watching.fired == {"CacheinvalOutOfTouch", "CacheinvalNoLease", "CacheinvalMutationsUnpurged"}
        redis_server.restart()
        await a.in_touch()
        await eventually(lambda: a.statistics.queue_length == 0, "the end of the queue")
        watching.scrape(3)
        assert "CacheinvalResets" in watching.fired
        watching.scrape(60)
        assert watching.scrape() == set()
