"""From trained weights to a verified artifact, and evaluation on the way; LoRA and full, tiny and real."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.support import CHATML, Job, Pod, make_job
from tunewright_api.artifact import verify
from tunewright_api.evaluation import DEFAULT_METRICS
from tunewright_api.names import ExitCode
from tunewright_api.results import ExportResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError
from tunewright_trainer.stages import export as export_stage


def verify_stage(root: Path, artifact: Path, digest: str) -> tuple[int, dict[str, Any]]:
    """Run verify as a process."""
    config = root / "verify.json"
    config.write_text(json.dumps({"artifact": str(artifact), "digest": digest}))
    finished = Pod.start("verify", config, root).finish()
    return finished.code, finished.message


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", [{"full": {}}, {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_train_evaluate_export_verify(job: Callable[..., Job], method: dict[str, Any], tiny_model: Path) -> None:
    made = job(
        method=method,
        hyperparameters={"maxSteps": 30},
        evaluation={"samplePrompts": ["Who?"], "maxNewTokens": 8},
    )
    made.must("prepare", "train")
    evaluated = made.must("evaluate")["evaluate"]
    assert evaluated["records"] == 4
    pairs = {pair["metric"]: (pair["base"], pair["tuned"]) for pair in evaluated["metrics"]}
    assert set(pairs) == set(DEFAULT_METRICS)
    assert pairs["Loss"][1] < pairs["Loss"][0]
    assert [sample["prompt"] for sample in evaluated["samples"]] == ["Who?"]
    if "lora" in method:
        check_adapter_export(made)

    result = made.must("export")["export"]
    assert result["kind"] == "Full"
    assert not made.work.exists()
    manifest = verify(made.artifact, result["digest"])
    assert manifest.job_uid == "uid-1"
    paths = {file.path for file in manifest.files}
    assert {"evaluation.json", "model/model.safetensors"} <= paths
    assert ("adapter/adapter_model.safetensors" in paths) == ("lora" in method)
    check_modes(made.artifact)
    for name in ("chat_template.jinja", "tokenizer.json", "config.json", "generation_config.json"):
        assert (made.artifact / "model" / name).read_bytes() == (tiny_model / name).read_bytes()
    assert loss_of(made.artifact / "model", made) == pytest.approx(pairs["Loss"][1], rel=1e-4)

    assert made.must("export")["export"]["digest"] == result["digest"]
    made.config["job"]["uid"] = "uid-2"
    refused = made.run("export")
    assert refused.code == ExitCode.OUTPUT_NOT_WRITABLE, refused.describe()
    assert "already exists and is written by the job with uid uid-1" in refused.message["message"]

    assert verify_stage(made.root, made.artifact, result["digest"])[0] == 0
    (made.artifact / "evaluation.json").write_text("{}")
    code, message = verify_stage(made.root, made.artifact, result["digest"])
    assert code == ExitCode.DIGEST_MISMATCH
    assert "evaluation.json was changed after export" in message["message"]


@pytest.mark.slow
def test_pruned_weights_are_evaluated_and_exported(job: Callable[..., Job]) -> None:
    from safetensors.torch import load_file

    made = job(method={"full": {}}, hyperparameters={"maxSteps": 20}, export={"pruning": {"sparsity": 0.5}})
    made.must("prepare", "train")
    unpruned = loss_of(made.work / "trained", made)
    metrics = {pair["metric"]: pair["tuned"] for pair in made.must("evaluate")["evaluate"]["metrics"]}
    result = made.must("export")["export"]
    assert result["sparsity"] == 0.5
    assert json.loads((made.artifact / "manifest.json").read_text())["sparsity"] == 0.5
    weights = load_file(made.artifact / "model" / "model.safetensors")
    down = [tensor for name, tensor in weights.items() if name.endswith("down_proj.weight")]
    assert [int((tensor == 0).sum()) * 2 for tensor in down] == [tensor.numel() for tensor in down]
    assert loss_of(made.artifact / "model", made) == pytest.approx(metrics["Loss"], rel=1e-4)
    assert metrics["Loss"] != pytest.approx(unpruned, rel=1e-3)


def check_adapter_export(made: Job) -> None:
    """`merge: false` on a copy of the work directory: the adapter alone."""
    copy = Job(made.root / "adapter-only", copy_of(made.config))
    copy.root.mkdir()
    copy.config["export"] = {"merge": False}
    copy.config["directories"] = {"work": str(copy.work), "artifact": str(copy.artifact)}
    shutil.copytree(made.work, copy.work)
    result = copy.must("export")["export"]
    assert result["kind"] == "Adapter"
    paths = {file.path for file in verify(copy.artifact, result["digest"]).files}
    served = {path for path in paths if not path.startswith("report/")}
    assert served == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "evaluation.json"}
    check_modes(copy.artifact)


def copy_of(config: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of a configuration."""
    copied: dict[str, Any] = json.loads(json.dumps(config))
    return copied


def check_modes(root: Path) -> None:
    """The serving pod runs as another user."""
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def loss_of(model: Path, job: Job) -> float:
    """Loss of an exported model on the same held-out records, loaded as a user would."""
    from transformers import AutoModelForCausalLM

    from tunewright_trainer.data import store
    from tunewright_trainer.evaluation.loss import evaluate_loss

    job.must("prepare")
    records = store.read(job.work / "dataset" / "validation.npy")
    return evaluate_loss(AutoModelForCausalLM.from_pretrained(model).eval(), records)


def test_a_directory_that_no_job_wrote_is_left_alone(job: Callable[..., Job]) -> None:
    made = job()
    made.artifact.mkdir()
    (made.artifact / "precious").write_text("x")
    finished = made.run("export")
    assert finished.code == ExitCode.OUTPUT_NOT_WRITABLE, finished.describe()
    assert "choose a new output.version" in finished.message["message"]
    assert (made.artifact / "precious").exists()


def test_export_without_training(job: Callable[..., Job]) -> None:
    made = job()
    finished = made.run("export")
    assert finished.code == ExitCode.INPUT_NOT_READABLE
    assert finished.message["message"].endswith("/trained: it does not exist: run the train stage first")
    assert not made.artifact.exists()


def test_a_failed_export_leaves_nothing(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(method={"full": {}})
    (made.work / "trained").mkdir(parents=True)

    def explode(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_stage, "copy_description", explode)
    with pytest.raises(OSError, match="No space left"):
        export_stage.run(TrainerConfig.model_validate(made.config))
    assert [path.name for path in made.root.iterdir() if "artifact" in path.name] == []


@pytest.mark.parametrize("merge", [False, True], ids=["adapter only", "merged"])
def test_an_export_that_is_repeated_reports_the_same(
    *, job: Callable[..., Job], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, merge: bool
) -> None:
    made = job(export={"merge": merge})
    made.config["model"] = {"uri": "hf://team/tiny", "hubId": "team/tiny"}
    shutil.copytree(tiny_model, made.work / "base-model")
    (made.work / "trained").mkdir()
    (made.work / "trained" / "adapter_model.safetensors").write_bytes(b"adapter")
    monkeypatch.setattr(export_stage, "write_tuned", lambda *_: None)
    config = TrainerConfig.model_validate(made.config)
    first = export_stage.run(config)
    assert first.chat_template_digest == "sha256:" + hashlib.sha256(CHATML.encode()).hexdigest()
    assert not made.work.exists()
    assert export_stage.run(config) == first


def test_two_jobs_with_one_output(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = job("slow", method={"full": {}}), job("quick", method={"full": {}})
    quick.config["job"]["uid"] = "uid-2"
    quick.config["directories"]["artifact"] = slow.config["directories"]["artifact"]
    for made in (slow, quick):
        (made.work / "trained").mkdir(parents=True)
        (made.work / "trained" / "model.safetensors").write_bytes(made.root.name.encode())
    finished: list[ExportResult] = []
    copy_description = export_stage.copy_description

    def meanwhile(base: Path, target: Path) -> None:
        if not finished:
            monkeypatch.setattr(export_stage, "copy_description", copy_description)
            finished.append(export_stage.run(TrainerConfig.model_validate(quick.config)))
        copy_description(base, target)

    monkeypatch.setattr(export_stage, "copy_description", meanwhile)
    with pytest.raises(StageError, match="already exists and is written by the job with uid uid-2") as caught:
        export_stage.run(TrainerConfig.model_validate(slow.config))
    assert caught.value.code is ExitCode.OUTPUT_NOT_WRITABLE
    assert verify(slow.artifact, finished[0].digest).job_uid == "uid-2"
    assert (slow.artifact / "model" / "model.safetensors").read_bytes() == b"quick"
    assert [path.name for path in slow.root.iterdir() if "artifact" in path.name] == ["artifact"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_model_learns_with_lora(tmp_path: Path, smollm: Path) -> None:
    job = make_job(
        tmp_path / "job",
        smollm,
        method={"lora": {}},
        hyperparameters={"maxSteps": 6, "microBatchSize": 4, "learningRate": 1e-3},
        evaluation={"maxRecords": 4, "maxNewTokens": 16, "samplePrompts": ["What is the capital of France?"]},
    )
    job.must("prepare", "train")
    evaluated = job.must("evaluate")["evaluate"]
    pairs = {pair["metric"]: (pair["base"], pair["tuned"]) for pair in evaluated["metrics"]}
    assert pairs["Loss"][1] < pairs["Loss"][0] - 0.3
    assert "Paris" in evaluated["samples"][0]["base"]
    result = job.must("export")["export"]
    assert result["chatTemplateDigest"].startswith("sha256:")
    verify(job.artifact, result["digest"])
