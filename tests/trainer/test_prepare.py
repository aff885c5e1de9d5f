"""The prepare stage as a process: files, digests, and what goes wrong with volumes and permissions."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.trainer.support import REPO, Job
from tunewright_api.artifact import MANIFEST, Manifest
from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.data import store
from tunewright_trainer.data.tokens import load_encoder
from tunewright_trainer.errors import StageError
from tunewright_trainer.stages import prepare

OTHER_USER = 65532
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes owners or mounts a volume")


def test_prepare_splits_and_digests(job: Callable[..., Job]) -> None:
    good = job()
    result = good.must("prepare")["prepare"]
    result.pop("estimate", None)
    data = (good.root / "data.jsonl").read_bytes()
    assert result == {
        "records": 40,
        "train": 36,
        "validation": 4,
        "truncated": 0,
        "divided": 0,
        "pieces": 0,
        "duplicates": 0,
        "dropped": 0,
        "quarantined": 0,
        "notes": [],
        "digest": "sha256:" + hashlib.sha256(data).hexdigest(),
    }
    written = sorted(file for file in (good.work / "dataset").iterdir() if file.is_file())
    before = [file.read_bytes() for file in written]
    train, validation = (store.read(good.work / "dataset" / name) for name in ("train.npy", "validation.npy"))
    assert (len(train), len(validation)) == (36, 4)
    assert train[0].messages[1]["role"] == "assistant"
    examples = json.loads((good.work / "dataset" / "report.json").read_text())["examples"]
    answers = [json.loads(line)["output"] + "<|im_end|>" for line in data.splitlines()]
    assert len(examples) == 3
    for example in examples:
        counted = [segment["text"] for segment in example["segments"] if segment["counted"]]
        assert counted == [answers[example["line"] - 1]]
    good.must("prepare")
    assert [file.read_bytes() for file in written] == before


def test_an_artifact_of_another_job_is_refused_before_any_training(job: Callable[..., Job]) -> None:
    taken = job()
    taken.artifact.mkdir()
    refused = taken.run("prepare")
    assert refused.code == ExitCode.OUTPUT_NOT_WRITABLE, refused.describe()
    assert "artifact already exists and is not an artifact of this job" in refused.message["message"]

    def written_by(uid: str) -> str:
        digest = "sha256:" + "d" * 64
        made = Manifest(job_uid=uid, kind="Full", base_model="pvc://data/base", files=[], digest=digest)
        return made.model_dump_json(by_alias=True)

    (taken.artifact / MANIFEST).write_text(written_by("uid-2"))
    refused = taken.run("prepare")
    assert refused.code == ExitCode.OUTPUT_NOT_WRITABLE, refused.describe()
    assert "written by the job with uid uid-2: choose a new output.version" in refused.message["message"]
    assert not taken.work.exists()
    (taken.artifact / MANIFEST).write_text(written_by(taken.config["job"]["uid"]))
    taken.must("prepare")


def test_prepare_and_verify_never_import_torch() -> None:
    program = (
        "import sys, tunewright_trainer.__main__, tunewright_trainer.stages.prepare, tunewright_trainer.stages.verify, "
        "tunewright_trainer.stages.train, tokenizers; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    path = f"{REPO / 'crds'}:{REPO / 'trainer_image'}"
    assert (
        subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=False).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param(lambda j: (j.root / "data.jsonl").unlink(), 66, "data.jsonl: it does not exist", id="no file"),
        pytest.param(lambda j: (j.root / "data.jsonl").write_text(""), 65, "has no records", id="empty file"),
        pytest.param(
            lambda j: (j.root / "data.jsonl").write_text('{"instruction": "a", "output": "b"}'),
            65,
            "at least two are needed",
            id="one record",
        ),
        pytest.param(
            lambda j: (j.work.mkdir(), j.config["dataset"].update(path=str(j.work))),
            66,
            "it is a directory, and holds neither",
            id="a directory without data",
        ),
        pytest.param(
            lambda j: j.config["hyperparameters"].update(sequenceLength=16),
            65,
            "line 1: the prompt alone fills hyperparameters.sequenceLength (16 tokens)",
            id="no room for an answer",
        ),
        pytest.param(lambda j: j.config["model"].update(path="/no/model"), 66, "/no/model", id="no model directory"),
        pytest.param(
            lambda j: j.config["model"].update(path=str(j.root.parent)),
            66,
            "is not a Hugging Face model directory",
            id="not a model",
        ),
        pytest.param(
            lambda j: j.config["hyperparameters"].update(epochs="many"),
            64,
            'hyperparameters.epochs: write a whole number, not "many"',
            id="wrong configuration",
        ),
        pytest.param(
            lambda j: j.config["dataset"].update(onLongRecord="Split"),
            64,
            "dataset.onLongRecord: Split divides documents, so it needs the format Text",
            id="conversations that are to be divided",
        ),
        pytest.param(
            lambda j: j.config.update(
                method={"adapter": {}}, hyperparameters={**j.config["hyperparameters"], "packing": True}
            ),
            64,
            "method.adapter and objective.dpo cannot do: set it to false",
            id="an adapter before several records",
        ),
        pytest.param(
            lambda j: j.config.update(surprise=1), 64, "unknown field surprise: remove it", id="unknown field"
        ),
    ],
)
def test_prepare_refuses(job: Callable[..., Job], change: Callable[[Job], object], code: int, words: str) -> None:
    wrong = job()
    change(wrong)
    finished = wrong.run("prepare")
    assert finished.code == code, finished.describe()
    assert finished.message["outcome"] == "Failed"
    assert finished.message["reason"] == ExitCode(code).reason
    assert words in finished.message["message"]


def remove(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).unlink()


def overwrite(name: str, content: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_text(content)


def halve(name: str) -> Callable[[Path], object]:
    """As after a copy that broke off."""
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[: (model / name).stat().st_size // 2])


def index(model: Path) -> None:
    (model / "model.safetensors").rename(model / "one.safetensors")
    weights = {"a": "one.safetensors", "b": "two.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def describe(**changes: object) -> Callable[[Path], object]:
    """A config.json that says something else."""

    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def fewer_embeddings(model: Path) -> None:
    describe(vocab_size=100)(model)
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:100]
    save_file(weights, model / "model.safetensors")


def one_of_two_shards(model: Path) -> None:
    """An index of two files, of which a download renamed the first to what transformers looks for before it."""
    names = load_file(model / "model.safetensors")
    save_file({name: names[name] for name in names if "layers.1" not in name}, model / "model.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "two")}))


def lost_from_shards(model: Path) -> None:
    (model / "model.safetensors").rename(model / "one.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))


TEMPLATE = "chat_template.jinja"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param(
            remove(TEMPLATE), 64, "has no chat template (chat_template.jinja): use its instr", id="no template"
        ),
        pytest.param(overwrite(TEMPLATE, "{% for"), 64, "is not valid Jinja", id="a template with a mistake"),
        pytest.param(
            overwrite(TEMPLATE, "<|begin_of_text|>{% for m in messages %}{{ m['content'] }}{% endfor %}"),
            64,
            "writes <|begin_of_text|>, which is no token of its tokenizer: use the template that came with the model",
            id="the template of another model",
        ),
        pytest.param(
            overwrite(TEMPLATE, "{% for m in messages %}{{ m['role'] }}{% endfor %}"),
            64,
            "leaves out what the user says: use the template that came with the model",
            id="a template that leaves out the question",
        ),
        pytest.param(
            overwrite(TEMPLATE, "{{ messages[0]['content'] + 1 }}"),
            64,
            "fails on a question with its answer (can only concatenate str",
            id="a template that fails",
        ),
        pytest.param(
            fewer_embeddings,
            64,
            "has token ids up to 258 and the model embeddings for 100: use the tokenizer that came with the model",
            id="another vocabulary",
        ),
        pytest.param(remove("tokenizer.json"), 66, "AutoTokenizer.from_pretrained", id="no tokenizer"),
        pytest.param(halve("tokenizer.json"), 66, "tokenizer.json: it is damaged (EOF", id="half a tokenizer"),
        pytest.param(
            halve("tokenizer_config.json"), 66, "tokenizer_config.json: it is damaged", id="half its settings"
        ),
        pytest.param(halve("config.json"), 66, "config.json: it is damaged", id="half a configuration"),
        pytest.param(overwrite("config.json", "[]"), 66, "it is damaged (no JSON object)", id="no configuration"),
        pytest.param(remove("model.safetensors"), 66, "it has neither model.safetensors nor an index", id="no weights"),
        pytest.param(
            index,
            66,
            "of the 2 files in model.safetensors.index.json 1 are missing (two.s",
            id="weights that miss a file",
        ),
        pytest.param(lost_from_shards, 66, "says that a is in one.safetensors, and it is not", id="an index that lies"),
        pytest.param(
            one_of_two_shards, 66, "2 layers, and the weights have 1 (model.layers.0 to", id="one of two files"
        ),
        pytest.param(halve("model.safetensors"), 66, "bytes, and its header describes 117", id="half of the weights"),
        pytest.param(
            overwrite("model.safetensors", "<html>" * 50), 66, "begin with b'<html><h'", id="a web page as weights"
        ),
        pytest.param(overwrite("model.safetensors", ""), 66, "or cut off: 0 bytes", id="weights without a byte"),
        pytest.param(
            describe(num_hidden_layers=3),
            66,
            "config.json describes 3 layers, and the weights have 2 (model.layers.0 to model.layers.1)",
            id="too few layers",
        ),
        pytest.param(
            describe(vocab_size=300),
            66,
            "config.json says vocab_size 300, and model.embed_tokens.weight has 259 rows",
            id="too few embeddings",
        ),
        pytest.param(
            describe(hidden_size=64),
            66,
            "config.json says hidden_size 64, and model.embed_tokens.weight has 32 columns",
            id="another width",
        ),
        pytest.param(
            describe(model_type="zork"), 64, "of this image cannot train models of type zork", id="another architecture"
        ),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_before_a_gpu_is_asked_for(
    job: Callable[..., Job], tiny_model: Path, change: Callable[[Path], object], code: int, words: str
) -> None:
    wrong = job()
    model = shutil.copytree(tiny_model, wrong.root / "model")
    change(model)
    wrong.config["model"]["path"] = str(model)
    with pytest.raises(StageError) as caught:
        prepare.run(TrainerConfig.model_validate(wrong.config))
    assert caught.value.code == code
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(remove("model.safetensors"), "it has neither model.safetensors nor an index", id="no weights"),
        pytest.param(halve("tokenizer.json"), "tokenizer.json: it is damaged (EOF", id="half a tokenizer"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_a_gpu_is_asked_for(
    job: Callable[..., Job], tiny_model: Path, change: Callable[[Path], object], words: str
) -> None:
    wrong = job(objective={"supervised": {"distillation": {"teacher": {"uri": "pvc://models/teacher"}}}})
    teacher = shutil.copytree(tiny_model, wrong.root / "teacher")
    change(teacher)
    wrong.config["objectiveInputs"] = {"teacher": str(teacher)}
    with pytest.raises(StageError) as caught:
        prepare.run(TrainerConfig.model_validate(wrong.config))
    assert caught.value.code is ExitCode.INPUT_NOT_READABLE
    assert words in caught.value.message


def test_a_hub_that_does_not_answer(job: Callable[..., Job]) -> None:
    offline = job()
    offline.config["model"] = {"uri": "hf://org/model", "hubId": "org/model"}
    refused = offline.run("prepare", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert refused.code == ExitCode.INPUT_NOT_READABLE, refused.describe()
    assert refused.message["message"].startswith("cannot download hf://org/model from http://127.0.0.1:9 (")
    assert "Traceback" not in refused.output


def test_an_output_below_a_file(job: Callable[..., Job]) -> None:
    wrong = job()
    (wrong.root / "file").write_text("")
    wrong.config["directories"]["work"] = str(wrong.root / "file" / "work")
    refused = wrong.run("prepare")
    assert refused.code == ExitCode.OUTPUT_NOT_WRITABLE, refused.describe()
    assert "or a directory above it, is a file: remove the file, or choose another" in refused.message["message"]


def test_rotary_positions_beyond_those_of_the_model_are_a_note(job: Callable[..., Job], tiny_model: Path) -> None:
    long = job(hyperparameters={"sequenceLength": 1024})
    long.config["model"]["path"] = str(shutil.copytree(tiny_model, long.root / "model"))
    config = TrainerConfig.model_validate(long.config)
    assert "sequenceLength 1024 is beyond the 512 positions that the model knows" in prepare.run(config).notes[0]
    describe(rope_parameters={"rope_type": "yarn", "factor": 2.0})(long.root / "model")
    assert prepare.run(config).notes == []


def test_documents_on_a_base_model_that_has_no_chat_template_and_no_pad_token(
    job: Callable[..., Job], tiny_model: Path
) -> None:
    base = job(method={"full": {}}, hyperparameters={"maxSteps": 1, "sequenceLength": 64})
    model = shutil.copytree(tiny_model, base.root / "model")
    (model / TEMPLATE).unlink()
    (model / "generation_config.json").unlink()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    base.config["model"]["path"] = str(model)
    base.config["dataset"]["format"] = "Text"
    # Of different lengths, so that a micro batch has to be padded.
    (base.root / "data.jsonl").write_text("\n".join(json.dumps({"text": "word " * n}) for n in range(1, 31)))
    exported = base.must("prepare", "train", "export")["export"]
    assert exported["kind"] == "Full"
    assert "chatTemplateDigest" not in exported


def test_configuration_that_is_missing_or_no_json(job: Callable[..., Job], tmp_path: Path) -> None:
    empty = job()
    pod = empty.start("prepare")
    assert pod.finish().code == 0
    from tests.trainer.support import Pod

    (tmp_path / "bad.json").write_text("{")
    for name, words in (("none.json", "No such file"), ("bad.json", "not valid JSON")):
        finished = Pod.start("train", tmp_path / name, tmp_path).finish()
        assert finished.code == ExitCode.INVALID_CONFIG
        assert words in finished.message["message"]


def test_sigterm_ends_a_light_stage_at_once(job: Callable[..., Job]) -> None:
    stopped = job()
    pipe = stopped.root / "data.jsonl"
    pipe.unlink()
    os.mkfifo(pipe)  # reading it blocks until a writer comes
    pod = stopped.start("prepare")
    pod.wait_for(lambda: catches_sigterm(pod.process.pid))
    pod.terminate()
    finished = pod.finish(timeout=10)
    assert finished.code == ExitCode.PREEMPTED, finished.describe()
    assert "stopped by SIGTERM" in finished.message["message"]


def test_sigterm_while_waiting_for_the_other_pods(job: Callable[..., Job]) -> None:
    waiting = job(distributed={"deepspeed": {"zeroStage": 2}})
    waiting.must("prepare")
    waiting.config["rendezvous"].update(nodes=2, address="pod-0.does-not-exist.invalid")
    pod = waiting.start("train", 1)
    pod.wait_for(lambda: catches_sigterm(pod.process.pid))
    pod.terminate()
    finished = pod.finish(timeout=30)
    assert finished.code == ExitCode.PREEMPTED, finished.describe()


def catches_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM (bit 14 of SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) & (1 << 14))


@needs_root
@pytest.mark.parametrize(
    ("locked", "code", "words"),
    [
        pytest.param("data.jsonl", 66, "permission denied", id="dataset that the pod's user may not read"),
        pytest.param("work", 74, "permission denied", id="output that the pod's user may not write"),
    ],
)
def test_permissions(job: Callable[..., Job], locked: str, code: int, words: str) -> None:
    refused = job()
    refused.work.mkdir()
    path = refused.root / locked
    os.chown(path, OTHER_USER, OTHER_USER)
    path.chmod(0o600 if path.is_file() else 0o755)
    finished = refused.run("prepare", without_override=True)
    assert finished.code == code, finished.describe()
    assert str(path) in finished.message["message"]
    assert words in finished.message["message"]
    assert "for user" in finished.message["message"] or "by user" in finished.message["message"]


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 16 MiB."""
    path = tmp_path / "volume"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounts")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@needs_root
def test_a_full_volume_is_named(job: Callable[..., Job], small_volume: Path) -> None:
    (small_volume / "filler").write_bytes(b"x" * (15 << 20))
    full = job(directories={"work": str(small_volume / "work"), "artifact": str(small_volume / "artifact")})
    data = full.root / "data.jsonl"
    long = json.dumps({"instruction": "a" * 60, "output": "b" * 60}) + "\n"
    data.write_text(long * 4000)
    finished = full.run("prepare")
    assert finished.code == ExitCode.VOLUME_FULL, finished.describe()
    assert f"the volume of {small_volume / 'work'} is full" in finished.message["message"]
    assert not [path for path in (small_volume / "work").iterdir() if "dataset" in path.name]


def test_a_set_that_is_not_split_loses_no_document(tiny_model: Path, tmp_path: Path) -> None:
    source, encoder = tmp_path / "set.jsonl", load_encoder(tiny_model)
    texts = ["short", "x" * 200]
    source.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    prepare.write_whole(source, DatasetFormat.TEXT, encoder, 64, tmp_path / "out" / "all.npy")
    records = store.read(tmp_path / "out" / "all.npy")
    assert [(record.line, len(record.ids)) for record in records] == [(1, 6), (2, 50), (2, 50), (2, 50), (2, 51)]
    whole = [encoder.encode_text(text, 1000).ids for text in texts]
    assert [token for record in records for token in record.ids] == [token for ids in whole for token in ids]
