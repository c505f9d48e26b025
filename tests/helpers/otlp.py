"""A receiver of OTLP over HTTP, in a thread of the test's process."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Exported", "Receiver", "receiver"]

PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Exported:
    """A span as it was exported; ids in hexadecimal, times in nanoseconds since the epoch."""

    service: str
    scope: str
    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]

    @property
    def is_server(self) -> bool:
        """Whether the framework made it for a request."""
        return "http.request.method" in self.attributes


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


class Receiver:
    """What has come so far; any thread may add."""

    def __init__(self) -> None:
        self.spans: list[Exported] = []
        self.metrics: dict[tuple[str, str], Any] = {}
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        """One export."""
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            for resource in traces.resource_spans:
                service = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_exported(service, scope.scope.name, span) for span in scope.spans]
        elif path == "/v1/metrics":
            metrics = ExportMetricsServiceRequest.FromString(body)
            for resource in metrics.resource_metrics:
                service = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_metrics:
                    self.metrics.update({(service, metric.name): metric for metric in scope.metrics})

    def until(self, find: Callable[[list[Exported]], Any], what: str) -> Any:
        """Wait for something to be found among the spans, and give it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := find(list(self.spans))):
            assert time.monotonic() < deadline, f"no {what} among {[(s.service, s.name) for s in self.spans]}"
            threading.Event().wait(0.01)
        return found


def _exported(service: str, scope: str, span: Any) -> Exported:
    return Exported(
        service=service,
        scope=scope,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


@contextmanager
def receiver() -> Generator[Receiver]:
    """A receiver on a free port of this machine."""
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
