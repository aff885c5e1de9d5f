"""Fixtures for all tests: throw-away control planes and the full-node cluster come from e2e.cluster."""

pytest_plugins = ["e2e.cluster.fixtures"]
