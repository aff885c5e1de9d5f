"""Configuration file of the server image: what the operator mounts at /etc/tunewright/config.json."""

from pydantic import Field

from tunewright_api.base import Digest, Model
from tunewright_api.engine import Engine, Sampling
from tunewright_api.names import PORT_SERVER, PORT_SERVER_HEALTH


class ServerModel(Model):
    """The artifact to serve."""

    artifact: str = Field(description="Directory with manifest.json and model/.")
    digest: Digest = Field(description="Digest that the files must have before anything is loaded.")
    served_name: str = Field(description="Value of `model` in requests.")


class ServerIdentity(Model):
    """Who this pod is: the labels of its metrics."""

    namespace: str = Field(description="Namespace of the InferenceService.")
    service: str = Field(description="Name of the InferenceService.")
    version: str = Field(description="Name of the ModelVersion.")
    revision: str = Field(description="Hash of what makes the revision.")


class ServerConfig(Model):
    """What the server image loads and how."""

    model: ServerModel = Field(description="The artifact to serve.")
    identity: ServerIdentity = Field(description="Who this pod is.")
    engine: Engine = Field(default_factory=Engine, description="spec.engine.")
    sampling: Sampling | None = Field(default=None, description="spec.sampling.")
    gpus: int = Field(default=0, ge=0, description="GPUs of this pod; 0 serves on the CPU.")
    port: int = Field(default=PORT_SERVER, description="Port of the OpenAI-compatible API.")
    health_port: int = Field(default=PORT_SERVER_HEALTH, description="Port of /ready, /live and /metrics.")
    drain_seconds: int = Field(
        default=30, ge=0, le=3600, description="How long running requests may go on after SIGTERM."
    )
