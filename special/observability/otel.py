"""Spans for OpenTelemetry: one for each request, below the caller's own, with one for each of its steps.

    GET tile                  what the caller's `traceparent` names is its parent
    ├── source                waiting for spans of the master or a rendition
    ├── queue                 waiting for a decoder
    ├── decode
    └── encode

The spans are made when the request is over, of what its `Trace` has kept: a server that sends none
imports nothing and spends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Self

from special.errors import ConfigurationError
from special.observability.trace import Trace
from special.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class OtelExporter:
    """Makes spans, and sends them through a provider of the SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("special", __version__)

    @classmethod
    def from_environment(cls) -> Self:
        """As the standard variables `OTEL_*` say. Raises `ConfigurationError` without the SDK."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise ConfigurationError(
                "the setting 'otel' needs OpenTelemetry: pip install 'special-iiif[otel]'"
            ) from None
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins over this.
        provider = TracerProvider(resource=Resource({SERVICE_NAME: "special"}).merge(Resource.create()))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def export(
        self,
        trace: Trace,
        headers: Iterable[tuple[bytes, bytes]],
        method: str,
        path: str,
        status: int,
        outcome: str,
        start_s: float,
    ) -> None:
        """A request is over, which began at `start_s` by `monotonic`."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # Of the headers only the two of W3C Trace Context are looked at.
        carried = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        now_ns, now_s = time_ns(), monotonic()

        def at(moment_s: float) -> int:
            return now_ns - int((now_s - moment_s) * 1e9)

        span = self._tracer.start_span(
            f"{method} {trace.route or 'iiif'}",
            context=TraceContextTextMapPropagator().extract(carried),
            kind=SpanKind.SERVER,
            start_time=at(start_s),
            attributes={
                "http.request.method": method,
                "url.path": path,
                "http.response.status_code": status,
                "special.route": trace.route,
                "special.outcome": outcome,
                "special.gets": trace.gets,
                "special.bytes": trace.bytes,
            },
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR, outcome)
        below = set_span_in_context(span)
        for name, from_s, to_s in trace.steps:
            self._tracer.start_span(name, context=below, start_time=at(from_s)).end(at(to_s))
        span.end(now_ns)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


_CONTEXT = (b"traceparent", b"tracestate")
