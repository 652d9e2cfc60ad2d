"""How property tests run, and which part of `make test` a cluster test belongs to.

No example fails for being slow, since a shared machine may be. What must be linear in its input has
tests of its own (`tests/fuzz/test_linear_time.py`).
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

SHARED = {"mini": "one", "changing": "changing", "ha": "three"}
"""Fixture of a shared cluster to the mark of the part that its tests make."""

settings.register_profile(
    "constellation",
    deadline=None,
    print_blob=True,
    suppress_health_check=(HealthCheck.too_slow,),
)
settings.load_profile("constellation")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark cluster tests by the cluster that they share; `clouds` is said by the files."""
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("clouds"):
            used = set(getattr(item, "fixturenames", ()))
            item.add_marker(next((SHARED[f] for f in SHARED if f in used), "own"))
