"""From the end of a vLLM process to an exit code and a sentence.

The outputs are those of vLLM 0.32 on a CPU, cut; those that need a GPU are the words of its source and of PyTorch's.
"""

import pytest

from tunewright_api.names import ExitCode
from tunewright_server.diagnosis import Exit, diagnose, find_fault

ECHO = [
    "(APIServer pid=7) Traceback (most recent call last):",
    "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]


def engine(*lines: str) -> Exit:
    """The engine's process failed: it logs the cause, prints it, and its parent repeats that there was one."""
    logged = [f"(EngineCore pid=9) ERROR 11-22 16:05:56 [core.py:1510] {line}" for line in lines]
    return Exit(1, [*logged, *lines, *ECHO])


def refused(config: str, words: str) -> Exit:
    """A check of vLLM's configuration failed."""
    return Exit(
        1,
        [
            "    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)",
            f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}",
            f"  Value error, {words} [type=value_error, input_value=ArgsKwargs((), {{'model_co... 'shutdown': 0}})]",
            "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
        ],
    )


USAGE = [
    "usage: api_server.py [-h] [--headless] [--api-server-count API_SERVER_COUNT]",
    "                     [--kda-decode-backend {auto,native,flashinfer,triton}]",
    "                     [model_tag]",
]
SITE = "/opt/tunewright/lib/python3.11/site-packages"

# (id, how it ended, exit code, words of the message)
FAULTS = [
    (
        "an argument that does not exist",
        Exit(2, [*USAGE, "api_server.py: error: unrecognized arguments: --no-such-argument=1"]),
        ExitCode.INVALID_CONFIG,
        "vLLM refuses its arguments: correct spec.engine. It says: unrecognized arguments: --no-such-argument=1",
    ),
    (
        "an argument with a wrong value",
        Exit(2, [*USAGE, "api_server.py: error: argument --max-num-batched-tokens: invalid int value: 'many'"]),
        ExitCode.INVALID_CONFIG,
        "It says: argument --max-num-batched-tokens: invalid int value: 'many'",
    ),
    (
        "an argument without its value",
        Exit(2, [*USAGE, "api_server.py: error: argument --kv-cache-dtype: expected one argument"]),
        ExitCode.INVALID_CONFIG,
        "It says: argument --kv-cache-dtype: expected one argument",
    ),
    (
        "a setting that vLLM refuses",
        refused("SchedulerConfig", "max_num_batched_tokens (16) is smaller than max_model_len (8192)."),
        ExitCode.INVALID_CONFIG,
        "vLLM refuses a setting: correct spec.engine. Its last words: pydantic_core._pydantic_core.ValidationError: 1 "
        "validation error for SchedulerConfig Value error, max_num_batched_tokens (16) is smaller",
    ),
    (
        "a quantization that the device cannot do",
        refused("ModelConfig", "fp8 quantization is currently not supported in cpu."),
        ExitCode.INVALID_CONFIG,
        "engine.quantization does not work on this device",
    ),
    (
        "FP8 without a GPU",
        engine(
            "RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s). "
            "Declaration: _C::static_scaled_fp8_quant() -> ()"
        ),
        ExitCode.INVALID_CONFIG,
        "engine.quantization does not work on this device",
    ),
    (
        "a GPU that is too old for a quantization",
        refused(
            "VllmConfig",
            "The quantization method fp8 is not supported for the current GPU. Minimum capability: 75. Current "
            "capability: 70.",
        ),
        ExitCode.INVALID_CONFIG,
        "engine.quantization does not work on this device",
    ),
    (
        "a quantization of another version of vLLM",
        refused("ModelConfig", "Unknown quantization method: bitsandbytes. Must be one of ['awq', 'fp8']."),
        ExitCode.INVALID_CONFIG,
        "choose another or leave it out",
    ),
    (
        "AWQ for weights that are not quantized",
        refused("VllmConfig", "Cannot find the config file for awq"),
        ExitCode.INVALID_CONFIG,
        "the artifact's weights are not quantized as engine.quantization says: leave it out",
    ),
    (
        "CompressedTensors for weights that are not quantized",
        Exit(
            1,
            [
                "TypeError: CompressedTensorsConfig.__init__() missing 3 required positional arguments: "
                "'target_scheme_map', 'ignore', and 'quant_format'"
            ],
        ),
        ExitCode.INVALID_CONFIG,
        "the artifact's weights are not quantized as engine.quantization says",
    ),
    (
        "GPTQ for weights that are AWQ",
        refused(
            "ModelConfig",
            "Quantization method specified in the model config (awq) does not match the quantization method specified "
            "in the `quantization` argument (gptq).",
        ),
        ExitCode.INVALID_CONFIG,
        "the artifact's weights are not quantized as engine.quantization says",
    ),
    (
        "a GPU that does not know bfloat16",
        engine(
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU "
            "has compute capability 7.5."
        ),
        ExitCode.INVALID_CONFIG,
        "set Float16",
    ),
    (
        "attention heads that cannot be shared",
        refused("VllmConfig", "Total number of attention heads (9) must be divisible by tensor parallel size (2)."),
        ExitCode.INVALID_CONFIG,
        "the model cannot be shared by so many GPUs",
    ),
    (
        "layers that cannot be shared",
        Exit(1, ["NotImplementedError: Pipeline parallelism is not supported for this model. Supported models ..."]),
        ExitCode.INVALID_CONFIG,
        "engine.pipelineParallelSize",
    ),
    (
        "a context that the model does not have",
        refused(
            "ModelConfig",
            "User-specified max_model_len (99999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json).",
        ),
        ExitCode.INVALID_CONFIG,
        "engine.maxModelLen exceeds what the model was made for: lower it or leave it out",
    ),
    (
        "a context that does not fit into the cache",
        engine(
            "ValueError: To serve at least one request with the model's max seq len (1000000), (21.46 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the "
            "estimated maximum model length is 46464."
        ),
        ExitCode.OUT_OF_MEMORY,
        "the key-value cache does not fit: lower engine.maxModelLen",
    ),
    (
        "no memory left for the cache",
        engine("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."),
        ExitCode.OUT_OF_MEMORY,
        "engine.gpuMemoryUtilization",
    ),
    (
        "no room for the cache on a CPU",
        engine(
            "ValueError: Available memory on node 0 (1.0/2.0 GiB) on kv cache allocation is less than requested "
            "memory for kv (4.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory "
            "used by other processes."
        ),
        ExitCode.OUT_OF_MEMORY,
        "raise engine.cpuKVCacheGiB with resources.memory",
    ),
    (
        "a GPU that somebody else uses",
        engine(
            "ValueError: Free memory on device cuda:0 (9.21/79.1 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 71.19 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
            "processes."
        ),
        ExitCode.OUT_OF_MEMORY,
        "something else uses the GPU's memory",
    ),
    (
        "a model that is too big for its GPUs",
        engine("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
        ExitCode.OUT_OF_MEMORY,
        "the model does not fit on its GPUs",
    ),
    (
        "a worker that the kernel killed for memory",
        Exit(1, ["EngineDeadError"], oom_kills=1),
        ExitCode.OUT_OF_MEMORY,
        "the kernel killed vLLM for exceeding the memory limit: raise resources.memory",
    ),
    (
        "a process that the kernel killed for memory",
        Exit(-9, ["loading"]),
        ExitCode.OUT_OF_MEMORY,
        "(SIGKILL), most likely",
    ),
    (
        "an allocation that failed",
        engine(
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9437184 bytes. Error code 12 (Cannot allocate memory)"
        ),
        ExitCode.OUT_OF_MEMORY,
        "vLLM ran out of memory: raise resources.memory",
    ),
    (
        "a full volume",
        Exit(1, ["OSError: [Errno 28] No space left on device: '/tmp/vllm-cache/modelinfos/x.json'"]),
        ExitCode.VOLUME_FULL,
        "a volume of the pod is full: give /tmp and /dev/shm more room",
    ),
    (
        "a shared memory that is too small",
        engine(
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_9_1_0>: No space left on device (28)"
        ),
        ExitCode.VOLUME_FULL,
        "/dev/shm is too small",
    ),
    (
        "a shared memory that ends while it is written",
        Exit(-7, ["(Worker pid=9) INFO 11-22 16:05:56 [core.py:1] loading"]),
        ExitCode.VOLUME_FULL,
        "SIGBUS, most likely because /dev/shm is full",
    ),
    (
        "no NVIDIA driver",
        engine(
            "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and "
            "installed a driver from http://www.nvidia.com/Download/index.aspx"
        ),
        ExitCode.GPU_UNUSABLE,
        "ask for them in resources['nvidia.com/gpu']",
    ),
    (
        "no GPU",
        engine("RuntimeError: No CUDA GPUs are available"),
        ExitCode.GPU_UNUSABLE,
        "this pod sees fewer GPUs than engine.tensorParallelSize times engine.pipelineParallelSize",
    ),
    (
        "a device that vLLM cannot find",
        Exit(1, ["RuntimeError: Failed to infer device type, please set the environment variable"]),
        ExitCode.GPU_UNUSABLE,
        "check the NVIDIA driver and device plugin of the node",
    ),
    (
        "no CUDA library",
        Exit(1, ["ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"]),
        ExitCode.GPU_UNUSABLE,
        "check the NVIDIA driver",
    ),
    (
        "fewer GPUs than asked for",
        refused(
            "ParallelConfig",
            "World size (4) is larger than the number of available GPUs (2) in this node. If this is intentional and "
            "you are using:",
        ),
        ExitCode.GPU_UNUSABLE,
        "this pod sees fewer GPUs",
    ),
    (
        "a driver that is too old",
        engine("RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."),
        ExitCode.GPU_UNUSABLE,
        "the node's GPU or its driver is too old for this image",
    ),
    (
        "a GPU that is too old",
        engine("RuntimeError: CUDA error: no kernel image is available for execution on the device"),
        ExitCode.GPU_UNUSABLE,
        "choose other nodes in scheduling",
    ),
    (
        "GPUs that cannot talk to each other",
        engine("RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)"),
        ExitCode.GPU_UNUSABLE,
        "the GPUs of the pod cannot talk to each other",
    ),
    (
        "a CPU without the instructions",
        Exit(-4, []),
        ExitCode.INTERNAL,
        "SIGILL: the node's CPU lacks instructions",
    ),
    (
        "an architecture that vLLM does not know",
        refused(
            "ModelConfig",
            "Model architectures ['NoSuchForCausalLM'] are not supported for now. Supported architectures: dict_keys([",
        ),
        ExitCode.INVALID_DATA,
        "this version of vLLM cannot serve the model's architecture",
    ),
    (
        "an architecture that transformers does not know",
        refused(
            "ModelConfig",
            "The checkpoint you are trying to load has model type `nosuch` but Transformers does not recognize this "
            "architecture. This could be because of an issue with the checkpoint",
        ),
        ExitCode.INVALID_DATA,
        "choose a base model that vLLM supports",
    ),
    (
        "an architecture that vLLM has forgotten",
        refused(
            "ModelConfig",
            "Model architecture MotifForCausalLM was supported in vLLM until v0.10.2, and is not supported anymore.",
        ),
        ExitCode.INVALID_DATA,
        "choose a base model that vLLM supports",
    ),
    (
        "no config.json",
        refused("ModelConfig", "Invalid repository ID or local directory specified: '/mnt/claims/models/demo/model'."),
        ExitCode.INVALID_DATA,
        "config.json is missing, broken or without model_type",
    ),
    (
        "a config.json that is no JSON",
        Exit(1, ["OSError: It looks like the config file at '/m/model/config.json' is not a valid JSON file."]),
        ExitCode.INVALID_DATA,
        "config.json is missing, broken or without model_type",
    ),
    (
        "no tokenizer",
        Exit(
            1,
            [
                f'  File "{SITE}/transformers/tokenization_utils_tokenizers.py", line 412, in __init__',
                "ValueError: Couldn't instantiate the backend tokenizer from one of: ",
                "(1) a `tokenizers` library serialization file, ",
            ],
        ),
        ExitCode.INVALID_DATA,
        "the tokenizer of the artifact is missing or broken",
    ),
    (
        "a broken tokenizer",
        Exit(
            1,
            [
                f'  File "{SITE}/transformers/tokenization_utils_base.py", line 1910, in _from_pretrained',
                '    added_tokens = tokenizer_file_handle.pop("added_tokens")',
                "KeyError: 'added_tokens'",
            ],
        ),
        ExitCode.INVALID_DATA,
        "register the model with its tokenizer. Its last words: KeyError: 'added_tokens'",
    ),
    (
        "no weights",
        engine("RuntimeError: Cannot find any model weights with `/mnt/claims/models/demo/model`"),
        ExitCode.INVALID_DATA,
        "weights are missing in the artifact",
    ),
    (
        "a missing shard",
        engine("FileNotFoundError: Weight files referenced in index but missing: ['model-00002-of-00002.safetensors']"),
        ExitCode.INVALID_DATA,
        "weights are missing in the artifact",
    ),
    (
        "weights that are cut off",
        engine(
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, "
            "file not fully covered"
        ),
        ExitCode.INVALID_DATA,
        "the weights of the artifact are damaged, cut off, or no weights",
    ),
    (
        "the pointer of a large file, whose first bytes are no sane length",
        Exit(
            1,
            [
                f'  File "{SITE}/vllm/transformers_utils/utils.py", line 113, in parse_safetensors_file_metadata',
                '    metadata = json.loads(f.read(length_of_metadata).decode("utf-8"))',
                "MemoryError",
            ],
        ),
        ExitCode.INVALID_DATA,
        "(the pointer of a Git LFS file?)",
    ),
    (
        "weights of another shape",
        engine(
            f'  File "{SITE}/vllm/model_executor/layers/vocab_parallel_embedding.py", line 515, in weight_loader',
            "    assert loaded_weight.shape[output_dim] == self.org_vocab_size",
            "AssertionError",
        ),
        ExitCode.INVALID_DATA,
        "the weights of the artifact do not fit its config.json",
    ),
    (
        "files that the pod may not read",
        Exit(1, ["PermissionError: [Errno 13] Permission denied: '/mnt/claims/models/demo/model/config.json'"]),
        ExitCode.INPUT_NOT_READABLE,
        "a file cannot be read by user 65532",
    ),
    (
        "a vLLM without our package",
        Exit(1, ["ModuleNotFoundError: No module named 'tunewright_server'"]),
        ExitCode.INVALID_CONFIG,
        "build the image as its Dockerfile does",
    ),
    (
        "a taken port",
        Exit(1, ["OSError: [Errno 98] Address already in use"]),
        ExitCode.INTERNAL,
        "the port of the API is taken by another process of this pod",
    ),
    (
        "an engine that vanished",
        Exit(
            0,
            [
                "(APIServer pid=7) ERROR 11-22 13:04:24 [async_llm.py:906] AsyncLLM output_handler failed.",
                "(APIServer pid=7) ERROR 11-22 13:04:24 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: "
                "EngineCore encountered an issue. See stack trace (above) for the root cause.",
                "INFO:     Application shutdown complete.",
            ],
        ),
        ExitCode.INTERNAL,
        "vLLM's engine process died without saying why",
    ),
    (
        "something unknown: the root cause, not its echo",
        engine("ValueError: odd weights"),
        ExitCode.INTERNAL,
        "vLLM exited with code 1 without being asked to. Its last words: ValueError: odd weights",
    ),
    (
        "something unknown: not the noise of every end",
        Exit(1, ["the disk is on fire", "INFO:     Finished server process [7]", "x.py:1: UserWarning: leaked"]),
        ExitCode.INTERNAL,
        "Its last words: the disk is on fire",
    ),
    (
        "something unknown: neither advice nor what clients wrote",
        Exit(
            1,
            [
                "(APIServer pid=7) WARNING 11-22 16:05:45 [system_utils.py:255] This can cause errors like `OSError: "
                "[Errno 28] No space left on device`.",
                'INFO:     10.0.0.7:1 - "GET /CUDA%20out%20of%20memory?CUDA out of memory HTTP/1.1" 404 Not Found',
                "ValueError: odd weights",
            ],
        ),
        ExitCode.INTERNAL,
        "Its last words: ValueError: odd weights",
    ),
    ("a silent end", Exit(0, []), ExitCode.INTERNAL, "exited with code 0 without being asked to. It said nothing."),
    ("a crash of native code", Exit(-11, ["x" * 9999]), ExitCode.INTERNAL, "was ended by SIGSEGV"),
    ("a signal without a name", Exit(-99, []), ExitCode.INTERNAL, "was ended by signal 99"),
]


@pytest.mark.parametrize(
    ("stopped", "code", "message"),
    [pytest.param(stopped, code, message, id=name) for name, stopped, code, message in FAULTS],
)
def test_diagnosis(stopped: Exit, code: ExitCode, message: str) -> None:
    failure = diagnose(stopped)
    assert failure.code is code
    assert message in failure.message
    assert len(failure.message) < 1024


def test_a_broken_chat_template_is_found_in_a_running_server() -> None:
    said = "(APIServer pid=7) ERROR 11-22 16:11:54 [hf.py:486] jinja2.exceptions.TemplateSyntaxError: unexpected 'end'"
    fault = find_fault(["INFO:     Started server process [7484]", said])
    assert fault is not None
    assert fault.code is ExitCode.INVALID_DATA
    assert "is no valid Jinja (unexpected 'end'), so no chat can be answered" in fault.message


def test_a_healthy_output_has_no_fault() -> None:
    assert find_fault(["INFO:     Application startup complete."]) is None
