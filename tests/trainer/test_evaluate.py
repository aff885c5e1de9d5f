"""How evaluation lets a model answer: as the served model will, token for token."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunewright_trainer.evaluation.answers import TOKENS, Answerer, end_tokens, load_tokenizer

END, TURN, TEXT = 256, 258, 65  # <|endoftext|>, <|im_end|> (the tokenizer's own end) and a letter


class Parrot:
    """A model that notes how it was asked, and answers with one letter."""

    device = "cpu"

    def __init__(self, eos: int | list[int] | None) -> None:
        self.generation_config = SimpleNamespace(eos_token_id=eos)
        self.asked: list[dict[str, Any]] = []

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> torch.Tensor:
        """Append the letter."""
        self.asked.append({"ids": input_ids.tolist(), "mask": attention_mask.tolist(), **settings})
        return torch.cat([input_ids, torch.full((len(input_ids), 1), TEXT)], dim=1)


@pytest.mark.parametrize(
    ("eos", "want"),
    [
        pytest.param(END, [END, TURN], id="another token in the generation settings"),
        pytest.param([END, TURN], [END, TURN], id="several, the tokenizer's one among them"),
        pytest.param(None, [TURN], id="no generation settings"),
    ],
)
def test_an_answer_ends_where_vllm_ends_it(tiny_model: Path, eos: int | list[int] | None, want: list[int]) -> None:
    parrot = Parrot(eos)
    (answer,) = set(Answerer(parrot, load_tokenizer(tiny_model), 8).answer([[1, 2], [3]]))
    assert len(answer) == 1
    assert parrot.asked == [
        {
            "ids": [[END, 3], [1, 2]],
            "mask": [[0, 1], [1, 1]],
            "max_new_tokens": 8,
            "do_sample": False,
            "eos_token_id": want,
            "pad_token_id": END,
        }
    ]


def test_long_conversations_share_no_batch(tiny_model: Path) -> None:
    parrot = Parrot(END)
    long = [1] * (TOKENS // 2 - 8)
    assert len(Answerer(parrot, load_tokenizer(tiny_model), 8).answer([long, [1], long, [2], long])) == 5
    assert [len(asked["ids"]) for asked in parrot.asked] == [2, 2, 1]


def test_a_tokenizer_that_ends_nothing(tiny_model: Path, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(tiny_model, mute)
    (mute / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    parrot = Parrot(None)
    Answerer(parrot, load_tokenizer(mute), 8).answer([[1]])
    assert (parrot.asked[0]["eos_token_id"], parrot.asked[0]["pad_token_id"]) == (None, 0)


def test_end_tokens() -> None:
    assert end_tokens(None, [7, 2], 2, 5) == [2, 5, 7]
