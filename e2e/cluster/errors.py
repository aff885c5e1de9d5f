"""The one error type of the cluster: its message is a sentence that says what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """Something that the user can act upon; printed without a traceback."""
