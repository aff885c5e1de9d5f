"""Pure computation of status: conditions, ordered readiness checks, progress."""
