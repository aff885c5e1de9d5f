"""Fixtures for all tests: throw-away control planes and the full-node cluster come from e2e.cluster."""

from hypothesis import settings

pytest_plugins = ["e2e.cluster.fixtures"]

# How long an example takes depends on what else the machine does, and a test asserts no timing.
settings.register_profile("tunewright", deadline=None)
settings.load_profile("tunewright")
