"""`tunewright estimate`: the memory that a job needs on each device, from its YAML and its model's config.json."""

import json
import sys
from collections.abc import Mapping
from decimal import InvalidOperation
from pathlib import Path
from typing import Any

from tunewright_api.estimate import Estimate, UnknownModelError
from tunewright_api.quantity import parse_quantity
from tunewright_cli.console import make_console
from tunewright_cli.exits import CliError, Exit
from tunewright_cli.parse import Target


def run(_: Target, __: str, *, file: str, model_config: str, gpu_memory: str, output: str) -> Exit:
    """Print the parts and what would help; exit code 2 when the device, or what a pod asks for, is too small."""
    device = read_memory(gpu_memory) if gpu_memory else None
    job = read_job(file)
    estimate = compute(job, read_config(model_config), file=file, config_file=model_config, gpu=device is not None)
    if output == "json":
        sys.stdout.write(json.dumps(report(estimate, device), indent=2) + "\n")
    else:
        from tunewright_cli.views.estimate import render_estimate

        make_console().print(render_estimate(str(job["metadata"]["name"]), estimate, device))
    fits = (device is None or estimate.fits(device)) and not estimate.shortages
    return Exit.OK if fits else Exit.NOT_READY


def compute(job: Mapping[str, Any], config: Mapping[str, Any], *, file: str, config_file: str, gpu: bool) -> Estimate:
    """The estimate of a job's manifest; raises CliError for a spec or a model that cannot be read."""
    from pydantic import ValidationError

    from tunewright_api.estimate.job import estimate_job
    from tunewright_api.finetunejob import FineTuneJobSpec

    try:
        spec = FineTuneJobSpec.model_validate(job.get("spec"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        raise CliError(f"{file}: {where}: {first['msg']}: correct it (kubectl explain finetunejob.spec)") from None
    try:
        return estimate_job(spec, config, gpu=gpu)
    except UnknownModelError as error:
        raise CliError(f"{config_file}: {error}: give the config.json of a decoder-only model") from None


def read_job(path: str) -> dict[str, Any]:
    """The only FineTuneJob of a YAML file; `-` is the standard input."""
    import yaml

    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        documents = [one for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except OSError as error:
        raise CliError(f"{path} cannot be read ({error.strerror}): give --filename another file") from None
    except yaml.YAMLError as error:
        raise CliError(f"{path} is not YAML ({str(error).splitlines()[0]}): correct it") from None
    jobs = [one for one in documents if one.get("kind") == "FineTuneJob"]
    if len(jobs) != 1:
        raise CliError(f"{path} has {len(jobs)} FineTuneJobs: give a file with one")
    return {"metadata": {"name": "job"}, **jobs[0]}


def read_config(path: str) -> dict[str, Any]:
    """A model's config.json, or that of a model directory."""
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise CliError(f"{file} cannot be read ({error.strerror}): give --model-config another file") from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise CliError(f"{file} is no JSON object: give the config.json of the base model")
    return config


def read_memory(text: str) -> int:
    """80Gi as bytes; a number alone is bytes."""
    try:
        return int(parse_quantity(text))
    except InvalidOperation:
        raise CliError(f"--gpu-memory {text} is no quantity: write for example 80Gi") from None


def report(estimate: Estimate, device: int | None) -> dict[str, Any]:
    """For programs: all sizes in bytes."""
    memory = estimate.memory
    return {
        "totalBytes": memory.total,
        "parts": memory.parts(),
        "hostBytes": memory.host,
        "diskBytes": memory.disk,
        "checkpointBytes": memory.checkpoint,
        "moment": memory.moment.value,
        "parameters": estimate.parameters,
        "trainableParameters": estimate.trainable,
        "deviceBytes": device,
        "fits": None if device is None else estimate.fits(device),
        "shortages": list(estimate.shortages),
        "advice": [{"setting": one.setting, "savesBytes": one.saves} for one in estimate.advice],
    }
