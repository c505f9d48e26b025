"""Whether there is an OpenTelemetry SDK to report to, through the API alone."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from opentelemetry import metrics, trace

__all__ = ["find_meter", "find_tracer", "is_provider", "package_version"]

_NAME = "fastapi_cacheinval"
# The API has no public way to ask whether a provider was set; until then it hands out stand-ins of these names.
_NOBODY = frozenset({"ProxyTracerProvider", "NoOpTracerProvider", "_DefaultTracerProvider"}) | frozenset(
    {"_ProxyMeterProvider", "NoOpMeterProvider", "_DefaultMeterProvider"}
)


def package_version() -> str:
    """The version of this package as it is installed; empty where it is not."""
    try:
        return version("fastapi-cacheinval")
    except PackageNotFoundError:
        return ""


def is_provider(provider: object) -> bool:
    """Whether it is a provider that somebody has set, and no stand-in for one."""
    return type(provider).__name__ not in _NOBODY


def find_tracer(provider: trace.TracerProvider) -> trace.Tracer | None:
    """A tracer of the provider; None where nobody would record."""
    if not is_provider(provider):
        return None
    tracer = provider.get_tracer(_NAME, package_version())
    return None if isinstance(tracer, trace.NoOpTracer) else tracer


def find_meter(provider: metrics.MeterProvider) -> metrics.Meter | None:
    """A meter of the provider; None where nobody would record."""
    if not is_provider(provider):
        return None
    meter = provider.get_meter(_NAME, package_version())
    return None if isinstance(meter, metrics.NoOpMeter) else meter
