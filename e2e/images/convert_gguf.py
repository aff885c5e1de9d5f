"""Turn a GGUF chat model into the Hugging Face layout (bf16 safetensors, tokenizer, chat template).

Run as a child process by `e2e.images.model`, with the gguf package on PYTHONPATH:

    python -m e2e.images.convert_gguf MODEL.gguf FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

PROBE = [{"role": "user", "content": "What is the capital of France?"}]


class BadConversionError(RuntimeError):
    """The converted model does not behave like the published one."""


def convert(source: Path, target: Path) -> None:
    """Write the model in `source` to the folder `target` and prove that it still answers.

    Raises:
        BadConversionError: The chat template is not ChatML, or the model does not know the capital of France.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    folder, name = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # GGUF only names its pre-tokenizer ("smollm"), and transformers falls back to plain ByteLevel. The published
    # tokenizer splits digits first; without that, a number next to text could be cut differently.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    rendered = tokenizer.apply_chat_template(PROBE, tokenize=False, add_generation_prompt=True)
    if not rendered.endswith("<|im_start|>user\n" + PROBE[0]["content"] + "<|im_end|>\n<|im_start|>assistant\n"):
        raise BadConversionError(f"the chat template is not ChatML: {rendered!r}")
    if tokenizer.eos_token != "<|im_end|>":
        raise BadConversionError(f"the end-of-sequence token is {tokenizer.eos_token!r} instead of <|im_end|>")

    # Dequantized in float32 and rounded once: a packed model cannot be saved as safetensors.
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).to(torch.bfloat16)
    model.hf_quantizer = None
    for left_over in ("quantization_config", "_name_or_path"):
        if hasattr(model.config, left_over):
            delattr(model.config, left_over)
    model.config.dtype = torch.bfloat16
    model.config.architectures = ["LlamaForCausalLM"]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    verify(target)


def verify(folder: Path) -> None:
    """Load the saved model as a user would and ask it for the capital of France."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if model.dtype is not torch.bfloat16:
        raise BadConversionError(f"the saved model has type {model.dtype} instead of bfloat16")
    prompt = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    generated = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(generated[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    if "Paris" not in answer:
        raise BadConversionError(f"asked for the capital of France, the model said {answer!r}")
    print(f"the capital of France, according to the converted model: {answer}")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
