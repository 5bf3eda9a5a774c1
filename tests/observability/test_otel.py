"""The spans of a request, as the SDK has them; and nothing of OpenTelemetry where nobody asks for it."""

from __future__ import annotations

import subprocess
import sys
from time import monotonic

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from special.observability.otel import OtelExporter
from special.observability.trace import Trace

pytestmark = pytest.mark.service

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def exporter(exported: InMemorySpanExporter) -> OtelExporter:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return OtelExporter(provider)


def test_a_request_is_a_span_below_its_callers_and_above_its_steps(
    exporter: OtelExporter, exported: InMemorySpanExporter
) -> None:
    start_s = monotonic() - 1
    trace = Trace(route="tile", gets=2, bytes=4096)
    trace.took("source", start_s + 0.1, start_s + 0.3)
    trace.took("queue", start_s + 0.3, start_s + 0.4)
    trace.drawn(200.0, 100.0)
    headers = [(b"traceparent", PARENT.encode()), (b"authorization", b"Bearer secret"), (b"cookie", b"login=secret")]
    exporter.export(trace, headers, "GET", "/iiif/3/a%2Fb/full/max/0/default.jpg", 200, "ok", start_s)
    *steps, request = exported.get_finished_spans()
    assert (request.name, request.kind) == ("GET tile", SpanKind.SERVER)
    assert request.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert request.parent.span_id == 0xB7AD6B7169203331
    assert dict(request.attributes) == {
        "http.request.method": "GET",
        "url.path": "/iiif/3/a%2Fb/full/max/0/default.jpg",
        "http.response.status_code": 200,
        "special.route": "tile",
        "special.outcome": "ok",
        "special.gets": 2,
        "special.bytes": 4096,
    }
    assert [step.name for step in steps] == ["source", "queue", "decode", "encode"]
    assert {step.parent.span_id for step in steps} == {request.context.span_id}
    assert [round((step.end_time - step.start_time) / 1e6) for step in steps] == [200, 100, 200, 100]
    assert round((steps[0].start_time - request.start_time) / 1e6) == 100
    assert steps[2].end_time == pytest.approx(steps[3].start_time, abs=1000)
    assert "secret" not in "".join(span.to_json() for span in exported.get_finished_spans())


def test_a_failure_is_an_error_and_without_a_parent_the_request_is_the_root(
    exporter: OtelExporter, exported: InMemorySpanExporter
) -> None:
    exporter.export(Trace(), [], "GET", "/iiif/3/a/info.json", 503, "unreachable", monotonic())
    (request,) = exported.get_finished_spans()
    assert request.parent is None
    assert (request.status.status_code, request.status.description) == (StatusCode.ERROR, "unreachable")
    assert request.name == "GET iiif"


def test_the_times_of_a_trace_are_the_sums_of_its_steps() -> None:
    trace = Trace()
    trace.took("source", 1.0, 1.5)
    trace.took("source", 2.0, 2.25)
    trace.drawn(12.0, 3.0)
    assert (trace.source_ms, trace.queue_ms) == (750, 0)
    assert (trace.decode_ms, trace.encode_ms) == pytest.approx((12, 3))


def test_nothing_is_imported_without_being_asked_for() -> None:
    look = "import sys, special.web.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_the_setting_says_what_to_install() -> None:
    look = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from special.observability.otel import OtelExporter\n"
        "try: OtelExporter.from_environment()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError the setting 'otel' needs OpenTelemetry: pip install")
