"""Settings of the operator process, read once from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunewright_api.names import PORT_OPERATOR, PORT_TRAINER

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class ConfigError(ValueError):
    """An environment variable cannot be used; the message names it and says what to write."""


@dataclass(frozen=True)
class OperatorConfig:
    """What an administrator can set. `from_env` gives the name of each environment variable."""

    trainer_image: str
    server_image: str
    image_pull_policy: str = "IfNotPresent"
    # Namespace of the operator's own pod: NetworkPolicies let it read the progress of a run.
    namespace: str = "tunewright-system"
    # Namespaces to watch; none means all of them.
    watch_namespaces: tuple[str, ...] = ()
    port: int = PORT_OPERATOR
    log_level: str = "INFO"
    trainer_port: int = PORT_TRAINER
    # Base URL of the Prometheus that scrapes the server pods; without one no rollout can be judged by metrics.
    prometheus_url: str = ""
    # Whether the operator has a sidecar: then it reaches server pods by the name of a Service, which mutual TLS needs.
    in_mesh: bool = False
    # Seconds between two looks at the progress of a run.
    progress_interval: float = 5.0
    # Seconds after which an object that waits for something unwatched (a claim, a Secret) is looked at again.
    recheck_interval: float = 15.0
    # Seconds after which an object with nothing to wait for is looked at again: for a lost watch, or an object of a
    # mesh (they are not watched) that somebody removed.
    settled_interval: float = 60.0
    # Seconds for the result of a pod to arrive after its Job has ended; the two come by separate watches.
    result_grace: float = 20.0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "OperatorConfig":
        """Read TUNEWRIGHT_* variables; raises ConfigError."""
        return cls(
            trainer_image=_required(env, "TUNEWRIGHT_TRAINER_IMAGE"),
            server_image=_required(env, "TUNEWRIGHT_SERVER_IMAGE"),
            image_pull_policy=_choice(env, "TUNEWRIGHT_IMAGE_PULL_POLICY", PULL_POLICIES, "IfNotPresent"),
            namespace=env.get("TUNEWRIGHT_NAMESPACE") or "tunewright-system",
            watch_namespaces=_list(env, "TUNEWRIGHT_WATCH_NAMESPACES"),
            port=int(_number(env, "TUNEWRIGHT_PORT", PORT_OPERATOR)),
            log_level=_choice(env, "TUNEWRIGHT_LOG_LEVEL", LOG_LEVELS, "INFO"),
            trainer_port=int(_number(env, "TUNEWRIGHT_TRAINER_PORT", PORT_TRAINER)),
            prometheus_url=_url(env, "TUNEWRIGHT_PROMETHEUS_URL"),
            in_mesh=_choice(env, "TUNEWRIGHT_IN_MESH", ("true", "false"), "false") == "true",
            progress_interval=_number(env, "TUNEWRIGHT_PROGRESS_INTERVAL_SECONDS", 5.0),
            recheck_interval=_number(env, "TUNEWRIGHT_RECHECK_INTERVAL_SECONDS", 15.0),
            settled_interval=_number(env, "TUNEWRIGHT_SETTLED_INTERVAL_SECONDS", 60.0),
            result_grace=_number(env, "TUNEWRIGHT_RESULT_GRACE_SECONDS", 20.0),
        )


def _required(env: Mapping[str, str], name: str) -> str:
    if not (value := env.get(name, "").strip()):
        raise ConfigError(f"{name} is not set: give it the reference of the image, for example registry/name:tag")
    return value


def _list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = env.get(name) or default
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: write one of {', '.join(choices)}")
    return value


def _url(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "").strip()
    if value and not value.startswith(("http://", "https://")):
        raise ConfigError(f"{name} is {value!r}: write a URL such as http://prometheus.monitoring:9090")
    return value


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise ConfigError(f"{name} is {text!r}: write a number above 0")
    return value
