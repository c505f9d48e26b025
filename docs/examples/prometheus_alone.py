from collections.abc import Iterator, Mapping

import prometheus_client
from fastapi import FastAPI
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


def by_label(name: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, f"By {label}.", labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


class CacheCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        now = cache.statistics()
        answered = {"hit": now.hits, "stale": now.stale, "miss": now.misses, "collapsed": now.collapsed}
        yield by_label("cacheinval_requests", "cacheinval_result", answered)
        yield by_label("cacheinval_fills", "cacheinval_outcome", now.fills)
        yield by_label("cacheinval_mutations", "cacheinval_outcome", now.mutations)
        yield GaugeMetricFamily("cacheinval_bus_connected", "Whether the purge log is in touch.", now.connected)
        yield GaugeMetricFamily("cacheinval_queue_age_seconds", "Of the oldest queued purge.", now.queue_age)
        yield GaugeMetricFamily("cacheinval_l1_size_bytes", "What is kept in memory.", now.size_bytes)
        yield GaugeMetricFamily("cacheinval_l1_max_bytes", "How much may be.", now.max_bytes)


registry = CollectorRegistry()
registry.register(CacheCollector())
app.mount("/metrics", prometheus_client.make_asgi_app(registry))  # keep it behind your own guard


@app.get("/page", dependencies=[cached(ttl=60)])
async def read_page() -> str:
    return "page"
