"""How many examples are drawn: `ISTHMUS_EXAMPLES=5000 pytest tests/properties` draws more."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "properties",
    deadline=None,  # wall clocks belong in benchmarks
    max_examples=int(os.environ.get("ISTHMUS_EXAMPLES", "120")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.load_profile("properties")
