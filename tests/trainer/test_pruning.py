"""Magnitude pruning: laws on small matrices, and the real model loses what it was asked to lose."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunewright_api.pruning import Pruning, PruningScope
from tunewright_trainer.pruning import global_threshold, prunable, prune, prune_matrix, sparsity

SHARES = st.floats(0.01, 0.95)


def matrix(seed: int, rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 12), SHARES)
def test_the_smallest_go_and_the_others_stay(seed: int, rows: int, columns: int, share: float) -> None:
    before, pruned = matrix(seed, rows, columns), matrix(seed, rows, columns)
    prune_matrix(pruned, share)
    gone = pruned == 0
    assert int(gone.sum()) == round(share * before.numel())
    assert torch.equal(pruned[~gone], before[~gone])
    if gone.any() and not gone.all():
        assert before[gone].abs().max() <= before[~gone].abs().min()


@given(st.integers(0, 99), SHARES)
def test_one_threshold_takes_the_share_of_all_together(seed: int, share: float) -> None:
    matrices = [matrix(seed, 5, 7, scale=10.0), matrix(seed + 1, 8, 8, scale=0.1)]
    threshold = global_threshold(matrices, share)
    total = sum(m.numel() for m in matrices)
    below = sum(int((m.abs() <= threshold).sum()) for m in matrices)
    strictly = sum(int((m.abs() < threshold * (1 - 1e-6)).sum()) for m in matrices)
    assert strictly < share * total <= below


@pytest.mark.slow
@pytest.mark.parametrize("scope", PruningScope)
def test_the_real_model_is_pruned_and_still_speaks(smollm: Path, scope: PruningScope) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(smollm, dtype=torch.float32).eval()
    kept = {name: p.clone() for name, p in model.named_parameters() if "layers" not in name or "norm" in name}

    assert prune(model, Pruning(sparsity=0.2, scope=scope)) == pytest.approx(0.2, abs=1e-3)

    shares = [sparsity([weights]) for weights in prunable(model)]
    assert len(shares) == 7 * model.config.num_hidden_layers
    assert (max(shares) - min(shares) < 1e-3) == (scope is PruningScope.MATRIX)
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters() if name in kept)
    prompt = AutoTokenizer.from_pretrained(smollm).apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in AutoTokenizer.from_pretrained(smollm).decode(answer)
