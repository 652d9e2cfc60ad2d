"""How property tests run: no example fails for being slow, since a shared machine may be.

What must be linear in its input has tests of its own (`tests/fuzz/test_linear_time.py`).
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "constellation",
    deadline=None,
    print_blob=True,
    suppress_health_check=(HealthCheck.too_slow,),
)
settings.load_profile("constellation")
