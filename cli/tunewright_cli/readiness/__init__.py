"""Why an object is not ready: its readiness checks in order, each with the fix that it calls for."""

from tunewright_cli.readiness.job import job_steps
from tunewright_cli.readiness.model import Outcome, Step, first_open
from tunewright_cli.readiness.service import service_steps
from tunewright_cli.readiness.version import version_steps

__all__ = ["Outcome", "Step", "first_open", "job_steps", "service_steps", "version_steps"]
