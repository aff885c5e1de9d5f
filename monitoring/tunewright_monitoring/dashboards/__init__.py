"""The dashboards, by the names of their files."""

from tunewright_monitoring.dashboards.rollout import ROLLOUT
from tunewright_monitoring.dashboards.serving import SERVING
from tunewright_monitoring.dashboards.training import TRAINING
from tunewright_monitoring.panels import Dashboard

DASHBOARDS: dict[str, Dashboard] = {"training": TRAINING, "serving": SERVING, "rollout": ROLLOUT}
