"""Whether there is an OpenTelemetry SDK to report to, through the API alone."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from opentelemetry import metrics, trace

__all__ = ["find_meter", "find_tracer"]

_NAME = "fastapi_cacheinval"
# The API has no public way to ask whether a provider was set; until then it hands out stand-ins of these names.
_NOBODY = frozenset({"ProxyTracerProvider", "NoOpTracerProvider", "_DefaultTracerProvider"}) | frozenset(
    {"_ProxyMeterProvider", "NoOpMeterProvider", "_DefaultMeterProvider"}
)


def _version() -> str:
    try:
        return version("fastapi-cacheinval")
    except PackageNotFoundError:
        return ""


def find_tracer(provider: trace.TracerProvider | None) -> trace.Tracer | None:
    """A tracer of the provider, or of the process's; None where nobody would record."""
    provider = provider or trace.get_tracer_provider()
    if type(provider).__name__ in _NOBODY:
        return None
    tracer = provider.get_tracer(_NAME, _version())
    return None if isinstance(tracer, trace.NoOpTracer) else tracer


def find_meter(provider: metrics.MeterProvider | None) -> metrics.Meter | None:
    """A meter of the provider, or of the process's; None where nobody would record."""
    provider = provider or metrics.get_meter_provider()
    if type(provider).__name__ in _NOBODY:
        return None
    meter = provider.get_meter(_NAME, _version())
    return None if isinstance(meter, metrics.NoOpMeter) else meter
