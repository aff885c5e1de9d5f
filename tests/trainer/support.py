"""A model of a few thousand weights, job configurations, and the stages as the processes they are in a pod."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from e2e.images.extensions import extensions_path
from tunewright_trainer.steps import StepRecord

REPO = Path(__file__).resolve().parents[2]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HIDDEN, LAYERS, INTERMEDIATE, HEADS = 32, 2, 64, 2


def step_record(step: int = 1, **changes: Any) -> StepRecord:
    """A step of a run of 100, but for what a test is about."""
    made = StepRecord(
        step=step,
        total_steps=100,
        epoch=step / 50,
        loss=1.0,
        learning_rate=1e-4,
        grad_norm=1.5,
        seconds=0.5,
        data_wait_seconds=0.05,
        checkpoint_stall_seconds=0.0,
        tokens=1000,
        tokens_per_second=2000.0,
        samples=4,
        memory_bytes=2**30,
        peak_memory_bytes=2**30,
    )
    return replace(made, **changes)


def real_model() -> Path:
    """The model that `python -m e2e.images model` made."""
    cache = Path(os.environ.get("TUNEWRIGHT_CACHE", "~/.cache/tunewright")).expanduser()
    return cache / "models" / "SmolLM2-135M-Instruct"


def write_tiny_model(path: Path, norm: float = 1.0) -> Path:
    """A Llama of two layers over bytes with random weights and a ChatML template: no download, no torch."""
    import numpy
    from safetensors.numpy import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    path.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(path / "tokenizer.json"))
    vocabulary = len(alphabet) + len(SPECIAL)
    end = tokenizer.token_to_id("<|im_end|>")
    _json(
        path / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    (path / "chat_template.jinja").write_text(CHATML)
    _json(path / "generation_config.json", eos_token_id=end, pad_token_id=end)
    _json(
        path / "config.json",
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        dtype="float32",
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=end,
    )
    rng = numpy.random.default_rng(0)

    def matrix(*shape: int) -> Any:
        return rng.normal(0, 0.05, shape).astype("float32")

    ones = numpy.ones(HIDDEN, dtype="float32")
    weights = {
        "model.embed_tokens.weight": matrix(vocabulary, HIDDEN),
        "model.norm.weight": numpy.full(HIDDEN, norm, dtype="float32"),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            weights[f"{prefix}self_attn.{name}_proj.weight"] = matrix(HIDDEN, HIDDEN)
        for name in ("gate", "up"):
            weights[f"{prefix}mlp.{name}_proj.weight"] = matrix(INTERMEDIATE, HIDDEN)
        weights[f"{prefix}mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE)
        weights[f"{prefix}input_layernorm.weight"] = ones
        weights[f"{prefix}post_attention_layernorm.weight"] = ones
    save_file(weights, str(path / "model.safetensors"), metadata={"format": "pt"})
    return path


def _json(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content))


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_dataset(path: Path, records: int = 40) -> Path:
    """Alpaca records with a regular answer."""
    rows = [
        {"instruction": f"What is the code of item {i}?", "output": f"Item {i} has the code TW-{i * 7:04d}."}
        for i in range(records)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass
class Job:
    """A job's directory and configuration, and its stages."""

    root: Path
    config: dict[str, Any]

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def artifact(self) -> Path:
        return self.root / "artifact"

    def start(self, stage: str, node: int = 0, **options: Any) -> Pod:
        """Start a stage as the main process of pod `node`."""
        path = self.root / "config.json"
        path.write_text(json.dumps(self.config))
        return Pod.start(stage, path, self.root, node, **options)

    def run(self, stage: str, **options: Any) -> Finished:
        """Run a stage to its end."""
        return self.start(stage, **options).finish()

    def must(self, *stages: str) -> dict[str, Any]:
        """Run stages that have to succeed; the termination message of the last one."""
        message: dict[str, Any] = {}
        for stage in stages:
            finished = self.run(stage)
            assert finished.code == 0, finished.describe()
            message = finished.message
        return message

    def train(self) -> list[Finished]:
        """Run the train stage on all pods."""
        pods = [self.start("train", node) for node in range(self.config["rendezvous"]["nodes"])]
        return [pod.finish() for pod in pods]

    def progress(self) -> dict[str, Any]:
        """GET /progress."""
        url = f"http://127.0.0.1:{self.config['port']}/progress"
        with urllib.request.urlopen(url, timeout=5) as answer:
            result: dict[str, Any] = json.load(answer)
            return result


@dataclass(frozen=True)
class Finished:
    """How a pod ended."""

    code: int
    message: dict[str, Any]
    output: str

    def describe(self) -> str:
        """For assertion messages."""
        return f"exit {self.code}: {self.message}\n{self.output[-4000:]}"

    def losses(self) -> dict[int, float]:
        """Training loss by optimizer step, from the log of rank 0."""
        entries = [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]
        return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry and "step" in entry}


class Pod:
    """A stage's main process with its children in a session of their own."""

    def __init__(self, process: subprocess.Popen[bytes], term: Path, log: Path) -> None:
        self.process, self.term, self.log = process, term, log

    @classmethod
    def start(
        cls,
        stage: str,
        config: Path,
        root: Path,
        node: int = 0,
        *,
        without_override: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Pod:
        term, log = root / f"termination-{stage}-{node}", root / f"{stage}-{node}.log"
        term.unlink(missing_ok=True)
        term.touch(mode=0o666)
        term.chmod(0o666)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{REPO / 'crds'}:{REPO / 'trainer_image'}:{extensions_path()}",
            "JOB_COMPLETION_INDEX": str(node),
            "TERMINATION_LOG_PATH": str(term),
            "OMP_NUM_THREADS": "1",
            **(env or {}),
        }
        # root passes by permissions through two capabilities; the pods of restricted namespaces have none
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if without_override else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tunewright_trainer", stage, "--config", str(config)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, term, log)

    def finish(self, timeout: float = 240) -> Finished:
        """Wait for the end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            raise AssertionError(f"still running after {timeout} s:\n{self.log.read_text()[-4000:]}") from None
        text = self.term.read_text()
        return Finished(code, json.loads(text) if text else {}, self.log.read_text())

    def terminate(self) -> None:
        """SIGTERM to the main process only, as the kubelet does."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything in the pod."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 120) -> None:
        """Wait until the condition holds while the pod runs."""
        end = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.finish().describe()
            assert time.monotonic() < end, f"condition not reached:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.02)


def make_job(root: Path, model: Path, **overrides: Any) -> Job:
    """A LoRA job over 40 records; dictionaries in `overrides` (by camelCase key) are merged one level deep."""
    root.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "job": {"namespace": "team", "name": "support", "uid": "uid-1"},
        "model": {"uri": "pvc://models/tiny", "path": str(model)},
        "dataset": {
            "path": str(write_dataset(root / "data.jsonl")),
            "format": "Alpaca",
            "validationPercent": 10,
        },
        "method": {"lora": {"rank": 4, "alpha": 8}},
        "hyperparameters": {
            "maxSteps": 4,
            "microBatchSize": 4,
            "precision": "FP32",
            "sequenceLength": 256,
            "learningRate": 2e-3,
        },
        "rendezvous": {"nodes": 1, "processesPerNode": 1, "address": "localhost", "port": free_port()},
        "checkpoint": {"everySteps": 100, "keepLast": 2},
        "evaluation": {"maxNewTokens": 16},
        "export": {},
        "directories": {"work": str(root / "work"), "artifact": str(root / "artifact"), "nvme": str(root / "nvme")},
        "port": free_port(),
    }
    for key, value in overrides.items():
        replace = key in {"method", "distributed"} or not isinstance(config.get(key), dict)
        config[key] = value if replace else {**config[key], **value}
    return Job(root, config)
