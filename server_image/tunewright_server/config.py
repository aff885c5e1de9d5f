"""Read the configuration file and the artifact's manifest: everything that is refused before a byte is loaded."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from tunewright_api.artifact import MODEL_DIR, ArtifactError, Manifest, verify
from tunewright_api.names import ExitCode
from tunewright_api.server_config import ServerConfig
from tunewright_server.failures import ServerError

# What the image was built for, cpu or cuda; absent outside of an image.
ACCELERATOR_VARIABLE = "TUNEWRIGHT_ACCELERATOR"


def load_config(path: Path) -> ServerConfig:
    """Parse and check the file; ServerError(INVALID_CONFIG) names the field."""
    try:
        text = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ServerError(ExitCode.INVALID_CONFIG, f"{path} cannot be read: {reason}") from error
    try:
        config = ServerConfig.model_validate_json(text)
    except ValidationError as error:
        raise ServerError(ExitCode.INVALID_CONFIG, f"{path}: {_describe(error)}") from error
    check_engine(config)
    return config


def check_engine(config: ServerConfig) -> None:
    """Refuse settings that contradict each other, with the remedy."""
    engine, wanted = config.engine, max(config.gpus, 1)
    if engine.tensor_parallel_size * engine.pipeline_parallel_size != wanted:
        raise ServerError(
            ExitCode.INVALID_CONFIG,
            f"engine.tensorParallelSize {engine.tensor_parallel_size} times engine.pipelineParallelSize "
            f"{engine.pipeline_parallel_size} differs from the {config.gpus} GPUs of this pod: make the product "
            f"{wanted}, for example with tensorParallelSize {wanted} alone",
        )
    if config.port == config.health_port:
        raise ServerError(
            ExitCode.INVALID_CONFIG, f"healthPort and port are both {config.port}: give them different ports"
        )


def check_device(config: ServerConfig, environment: Mapping[str, str]) -> None:
    """Refuse an image that cannot use the pod's GPUs: its vLLM would serve on the CPUs without a word."""
    if config.gpus and environment.get(ACCELERATOR_VARIABLE) == "cpu":
        raise ServerError(
            ExitCode.INVALID_CONFIG,
            f"this pod has {config.gpus} GPUs, but the server image was built for CPUs: set an image that was built "
            "with ACCELERATOR=cuda, or remove resources['nvidia.com/gpu']",
        )


def verify_artifact(config: ServerConfig) -> Path:
    """Recompute the artifact's digest and return the directory of its merged weights. Reads every byte: slow."""
    root = Path(config.model.artifact)
    if not root.is_dir():
        raise ServerError(
            ExitCode.INPUT_NOT_READABLE, f"{root} is not a directory: is the claim of the artifact mounted?"
        )
    try:
        manifest = verify(root, config.model.digest)
    except ArtifactError as error:
        raise ServerError(ExitCode.DIGEST_MISMATCH, f"{error}. Nothing was loaded") from error
    except OSError as error:
        raise ServerError(
            ExitCode.INPUT_NOT_READABLE, f"{error.filename or root} cannot be read: {error.strerror}"
        ) from error
    return _model_directory(root, manifest)


def _model_directory(root: Path, manifest: Manifest) -> Path:
    if any(file.path.startswith(f"{MODEL_DIR}/") for file in manifest.files):
        return root / MODEL_DIR
    raise ServerError(
        ExitCode.INVALID_CONFIG,
        f"the artifact is of kind {manifest.kind} and has no {MODEL_DIR}/ directory: an adapter alone cannot be "
        "served, train it again with export.merge: true",
    )


def _describe(error: ValidationError) -> str:
    """`field.path: what is wrong`, for the first few errors."""
    parts = [f"{'.'.join(str(key) for key in item['loc']) or 'the file'}: {item['msg']}" for item in error.errors()[:5]]
    return "; ".join(parts)
