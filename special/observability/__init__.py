"""Metrics, logs and traces."""

from special.observability import logs, metrics
from special.observability.figures import figures
from special.observability.metrics import (
    PROMOTIONS,
    VOLUME_BLOCKS,
    VOLUME_BYTES,
    VOLUME_EVICTIONS,
    VOLUME_FAULTS,
    VOLUME_PREFETCHED,
)
from special.observability.multiprocess import SHARED_COUNTS, exposition, metrics_folder
from special.observability.otel import OtelExporter
from special.observability.slowest import Slowest
from special.observability.trace import Trace, trace, tracing

__all__ = [
    "PROMOTIONS",
    "SHARED_COUNTS",
    "VOLUME_BLOCKS",
    "VOLUME_BYTES",
    "VOLUME_EVICTIONS",
    "VOLUME_FAULTS",
    "VOLUME_PREFETCHED",
    "OtelExporter",
    "Slowest",
    "Trace",
    "exposition",
    "figures",
    "logs",
    "metrics",
    "metrics_folder",
    "trace",
    "tracing",
]
