import prometheus_client
from fastapi import FastAPI
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

cache = HTTPCache(meter_provider=MeterProvider(metric_readers=[PrometheusMetricReader()]))
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
app.mount("/metrics", prometheus_client.make_asgi_app())  # keep it behind your own guard


@app.get("/page", dependencies=[cached(ttl=60)])
async def read_page() -> str:
    return "page"
