"""Configuration file of the server image: what the operator mounts at /etc/tunewright/config.json."""

from pydantic import Field

from tunewright_api.base import Digest, Model
from tunewright_api.inferenceservice import Engine
from tunewright_api.names import PORT_SERVER, PORT_SERVER_HEALTH


class ServerModel(Model):
    """The artifact to serve."""

    artifact: str = Field(description="Directory with manifest.json and model/.")
    digest: Digest = Field(description="Digest that the files must have before anything is loaded.")
    served_name: str = Field(description="Value of `model` in requests.")


class ServerConfig(Model):
    """What the server image loads and how."""

    model: ServerModel = Field(description="The artifact to serve.")
    engine: Engine = Field(default_factory=Engine, description="spec.engine.")
    gpus: int = Field(default=0, ge=0, description="GPUs of this pod; 0 serves on the CPU.")
    port: int = Field(default=PORT_SERVER, description="Port of the OpenAI-compatible API.")
    health_port: int = Field(default=PORT_SERVER_HEALTH, description="Port of /ready and /live.")
    drain_seconds: int = Field(
        default=30, ge=0, le=3600, description="How long running requests may go on after SIGTERM."
    )
