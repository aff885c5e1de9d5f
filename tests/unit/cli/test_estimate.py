"""`tunewright estimate`: the screen, the exit codes, and what is said about wrong files."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Snapshot
from tunewright_cli.__main__ import run
from tunewright_cli.commands.estimate import compute, read_config, read_job, read_memory
from tunewright_cli.exits import Exit
from tunewright_cli.views.estimate import render_estimate

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "llama-3-70b" / "finetunejob.yaml"
LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """config.json of Llama 3 70B."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_70B))
    return path


def test_the_estimate_as_people_see_it(config: Path, snapshot: Snapshot) -> None:
    estimate = compute(read_job(str(EXAMPLE)), read_config(str(config)), file="", config_file="", gpu=True)
    snapshot("estimate", render_estimate("llama-3-70b-support", estimate, read_memory("80Gi")))


def test_a_script_reads_bytes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["estimate", "-f", str(EXAMPLE), "--model-config", str(config.parent), "--gpu-memory", "20Gi", "-o", "json"]
    assert run(line) is Exit.NOT_READY
    report = json.loads(capsys.readouterr().out)
    assert (report["fits"], report["deviceBytes"]) == (False, 20 * 2**30)
    assert sum(report["parts"].values()) == report["totalBytes"] > 20 * 2**30
    assert report["parameters"] == 70_553_706_496
    assert report["advice"][0]["savesBytes"] >= report["advice"][1]["savesBytes"]


def test_what_the_pods_ask_for_too_little_of_is_told(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = read_job(str(EXAMPLE))
    job["spec"]["method"] = {"full": {}}
    job["spec"]["distributed"] = {
        "deepspeed": {"zeroStage": 3, "offloadOptimizer": "NVMe", "nvme": {"size": "800Gi"}},
    }
    job["spec"]["resourcesPerNode"]["memory"] = "30Gi"
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job))
    assert run(["estimate", "-f", str(path), "--model-config", str(config), "-o", "json"]) is Exit.NOT_READY
    report = json.loads(capsys.readouterr().out)
    assert report["shortages"] == [
        "resourcesPerNode.memory is 30Gi, and the 8 processes of a pod need about 35.8Gi: ask for more",
        "distributed.deepspeed.nvme.size is 800Gi, and the 8 processes of a pod need about 919.9Gi: ask for more",
    ]
    assert report["diskBytes"] == -(-28 * report["trainableParameters"] // 16)


@pytest.mark.parametrize(
    ("size", "code"),
    [pytest.param("200Gi", Exit.OK, id="it fits"), pytest.param("", Exit.OK, id="nobody says how large the GPU is")],
)
def test_the_exit_code_is_the_verdict(config: Path, size: str, code: Exit) -> None:
    option = ["--gpu-memory", size] if size else []
    assert run(["estimate", "-f", str(EXAMPLE), "--model-config", str(config), *option]) is code


@pytest.mark.parametrize(
    ("job", "model", "memory", "message"),
    [
        pytest.param("kind: Pod", "{}", "", "has 0 FineTuneJobs: give a file with one", id="another kind"),
        pytest.param("a: [", "{}", "", "is not YAML", id="no YAML"),
        pytest.param(
            "kind: FineTuneJob\nspec: {}", "{}", "", "spec.baseModel: Field required: correct it", id="no spec"
        ),
        pytest.param(EXAMPLE.read_text(), "[]", "", "is no JSON object", id="no config"),
        pytest.param(EXAMPLE.read_text(), "{}", "", "config.json has no hidden_size: give the config.json", id="empty"),
        pytest.param("", "{}", "lots", "--gpu-memory lots is no quantity: write for example 80Gi", id="no quantity"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    *, tmp_path: Path, capsys: pytest.CaptureFixture[str], job: str, model: str, memory: str, message: str
) -> None:
    (tmp_path / "job.yaml").write_text(job)
    (tmp_path / "config.json").write_text(model)
    line = ["estimate", "-f", str(tmp_path / "job.yaml"), "--model-config", str(tmp_path / "config.json")]
    assert run(line + (["--gpu-memory", memory] if memory else [])) is Exit.ERROR
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "-f", str(tmp_path / "none"), "--model-config", "x"]) is Exit.ERROR
    assert "none cannot be read (No such file or directory)" in capsys.readouterr().err
