"""What a reader chooses at the top of a dashboard, and the matchers that follow from it."""

from tunewright_api.names import METRIC_LABEL_NAMESPACE, METRIC_LABEL_SERVICE
from tunewright_monitoring.names import READY, TRAIN_INFO
from tunewright_monitoring.panels import Variable


def _selector(variables: tuple[Variable, ...], *more: str) -> str:
    return f"{{{', '.join([*(variable.matcher for variable in variables), *more])}}}"


SERVICE_VARIABLES = (
    Variable(METRIC_LABEL_NAMESPACE, "Namespace", READY),
    Variable(METRIC_LABEL_SERVICE, "InferenceService", READY),
)
JOB_VARIABLES = (Variable("namespace", "Namespace", TRAIN_INFO), Variable("name", "FineTuneJob", TRAIN_INFO))

OF_SERVICE = _selector(SERVICE_VARIABLES)
OF_CLIENTS = _selector(SERVICE_VARIABLES, 'source="client"')
OF_JOB = _selector(JOB_VARIABLES)
IN_NAMESPACE = _selector(SERVICE_VARIABLES[:1])
