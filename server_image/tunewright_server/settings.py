"""How often the server looks and how long it waits: constants with a reason, overridable by the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tunewright_api.names import ExitCode
from tunewright_server.failures import ServerError

PREFIX = "TUNEWRIGHT_SERVER_"


@dataclass(frozen=True)
class Settings:
    """Seconds. Each field `x_y` is overridden by the environment variable TUNEWRIGHT_SERVER_X_Y."""

    # While vLLM loads: how often /health is asked. A refused connection costs nothing.
    loading_poll: float = 0.5
    # A load that neither prints nor computes for this long is stuck. Reading weights from a slow
    # volume does compute a little (page faults), so this does not fire on it.
    loading_silence: float = 300.0
    # No load takes longer than this; a livelock computes and would otherwise go unnoticed for ever.
    loading_limit: float = 3600.0

    # While vLLM serves: how often /health and /metrics are asked.
    check: float = 10.0
    # At the latest so long after the last completion seen, a real one is asked for.
    completion: float = 60.0
    # After a failure, a real completion is tried this often.
    retry: float = 2.0
    # How long one completion of one token may take. Long, because it queues behind users' requests.
    completion_timeout: float = 30.0
    # How long the first measurement of speed may hold up readiness: a slow model is measured by the tokens that came.
    performance_timeout: float = 10.0
    # No completion and no generated token for this long: /live turns to 503 and the kubelet restarts the
    # container. Must exceed `completion` + `completion_timeout`, or one slow answer would do it.
    stuck: float = 180.0
    # The kubelet does not ask /live before the startup probe passed. If nobody restarted a stuck server for this
    # long, it ends by itself, with the cause in its termination message.
    stuck_exit: float = 60.0

    # After SIGTERM, serve at least this long even when idle: proxies and kube-proxy learn a little later that the
    # pod's address is gone, and requests keep arriving. Short, because the operator's preStop hook waits as well.
    drain_min: float = 2.0
    # Requests are over when none was running for this long: vLLM counts a request only after
    # its first engine step, so a single zero proves little.
    drain_idle: float = 1.0
    drain_poll: float = 0.25
    # vLLM's own drain after SIGTERM, for a request that slipped in after the last look.
    engine_drain: float = 3.0
    # From SIGTERM to SIGKILL of vLLM; exceeds engine_drain. The operator's grace period leaves 10 s after the drain.
    engine_stop: float = 8.0


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Defaults overridden by the environment; ServerError(INVALID_CONFIG) names a bad variable."""
    values: dict[str, float] = {}
    for field in fields(Settings):
        name = PREFIX + field.name.upper()
        if (text := environment.get(name)) is None:
            continue
        try:
            values[field.name] = float(text)
        except ValueError:
            values[field.name] = -1.0
        if not 0 <= values[field.name] < 1e6:
            raise ServerError(ExitCode.INVALID_CONFIG, f"{name} is {text!r}: it must be a number of seconds")
    return Settings(**values)
