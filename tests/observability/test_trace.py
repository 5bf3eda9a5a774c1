from __future__ import annotations

from special.observability import tracing


def test_a_pyramid_that_is_being_made_is_told_of() -> None:
    with tracing() as trace:
        trace.route = "tile"
        before = trace.server_timing()
        trace.preparing = True
        assert trace.server_timing() == f"{before}, pyramid;desc=building"
