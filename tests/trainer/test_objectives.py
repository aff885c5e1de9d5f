"""Every objective against the formula of its paper, computed anew in numpy with float64 and plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM

from tunewright_api.method import Method
from tunewright_trainer.errors import StageError
from tunewright_trainer.methods.build import add_adapter
from tunewright_trainer.objectives import likelihood
from tunewright_trainer.objectives.contrastive import contrastive_sum, segments_of
from tunewright_trainer.objectives.distillation import Distillation
from tunewright_trainer.objectives.dpo import REFERENCE, Dpo, answer_log_probs, dpo_sum
from tunewright_trainer.objectives.ewc import ElasticWeights, LoraAnchor, anchors_of, estimate_fisher
from tunewright_trainer.objectives.forward import bare, predict, skips_positions
from tunewright_trainer.objectives.likelihood import cross_entropy_sum, softened_kl_sum, token_log_probs
from tunewright_trainer.objectives.objective import IGNORED, Batch
from tunewright_trainer.objectives.reference import ReferencedPairs, measure_reference
from tunewright_trainer.objectives.supervised import Supervised
from tunewright_trainer.parallel.single import Single
from tunewright_trainer.parallel.update import casting
from tunewright_trainer.processes import Processes
from tunewright_trainer.validation import uncounted

Array = np.ndarray[Any, np.dtype[np.float64]]
CPU = torch.device("cpu")


def log_softmax(row: Array) -> Array:
    """Of one position, in float64."""
    exponentials = np.exp(row - row.max())
    return row - row.max() - np.log(exponentials.sum())  # type: ignore[no-any-return]


def as_array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()  # type: ignore[no-any-return]


@st.composite
def logits_and_targets(draw: st.DrawFn, copies: int = 1) -> tuple[list[torch.Tensor], torch.Tensor]:
    """`copies` random logits of (rows, positions, vocabulary), and targets of which some do not count."""
    rows, positions, vocabulary = (draw(st.integers(1, size)) for size in (3, 6, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread = draw(st.sampled_from([0.1, 1.0, 30.0]))
    logits = [torch.randn((rows, positions, vocabulary), generator=generator) * spread for _ in range(copies)]
    targets = torch.randint(0, vocabulary, (rows, positions), generator=generator)
    ignored = torch.rand((rows, positions), generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return logits, targets.masked_fill(ignored, IGNORED)


def gradient(loss: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    (result,) = torch.autograd.grad(loss, of, retain_graph=True)
    return result


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few positions take several chunks."""
    monkeypatch.setattr(likelihood, "CHUNK_ELEMENTS", 16)


class TestCrossEntropy:
    @given(logits_and_targets())
    def test_is_the_sum_of_negative_log_probabilities(self, case: tuple[list[torch.Tensor], torch.Tensor]) -> None:
        (logits,), targets = case
        expected = -sum(
            log_softmax(as_array(logits)[row, position])[target]
            for (row, position), target in np.ndenumerate(targets.numpy())
            if target != IGNORED
        )
        assert cross_entropy_sum(logits, targets).item() == pytest.approx(expected, rel=1e-5, abs=1e-5)

    @given(logits_and_targets(), st.sampled_from([0.25, 3.0]))
    def test_gradient_is_softmax_minus_one_hot_where_it_counts(
        self, case: tuple[list[torch.Tensor], torch.Tensor], scale: float
    ) -> None:
        (logits,), targets = case
        logits.requires_grad_()
        expected = np.zeros(logits.shape)
        for (row, position), target in np.ndenumerate(targets.numpy()):
            if target != IGNORED:
                expected[row, position] = np.exp(log_softmax(as_array(logits)[row, position]))
                expected[row, position, target] -= 1
        found = gradient(cross_entropy_sum(logits, targets) * scale, logits)
        np.testing.assert_allclose(found.numpy(), expected * scale, atol=1e-5)

    def test_half_precision_logits_are_summed_in_fp32_and_get_gradients_of_their_own_dtype(self) -> None:
        logits = torch.randn(1, 500, 40, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
        targets = torch.arange(500).remainder(40).unsqueeze(0)
        loss = cross_entropy_sum(logits, targets)
        expected = -sum(log_softmax(row)[i % 40] for i, row in enumerate(as_array(logits)[0]))
        assert loss.dtype is torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-6)
        assert gradient(loss, logits).dtype is torch.bfloat16

    def test_taking_the_gradient_leaves_the_logits_as_they_are(self) -> None:
        logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(2)).requires_grad_()
        loss, before = cross_entropy_sum(logits, torch.tensor([1, 2, 3, 0])), logits.detach().clone()
        torch.testing.assert_close(gradient(loss, logits), gradient(loss, logits))
        assert torch.equal(logits, before)

    def test_weighted_tokens_get_weighted_gradients(self) -> None:
        logits = torch.randn(4, 7, dtype=torch.float32, generator=torch.Generator().manual_seed(2)).requires_grad_()
        targets, weights = torch.tensor([1, IGNORED, 3, 0]), torch.tensor([0.5, 9.0, -2.0, 0.0])
        expected = np.zeros((4, 7))
        for row in (0, 2, 3):
            expected[row] = -np.exp(log_softmax(as_array(logits)[row])) * float(weights[row])
            expected[row, int(targets[row])] += float(weights[row])
        found = gradient((token_log_probs(logits, targets) * weights).sum(), logits)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


class TestDistillation:
    @given(logits_and_targets(copies=2), st.sampled_from([0.5, 1.0, 2.0, 10.0]))
    def test_is_t_squared_times_the_divergence_of_the_softened_distributions(
        self, case: tuple[list[torch.Tensor], torch.Tensor], temperature: float
    ) -> None:
        (student, teacher), targets = case
        student.requires_grad_()
        expected, slope = 0.0, np.zeros(student.shape)
        for place, target in np.ndenumerate(targets.numpy()):
            if target != IGNORED:
                ours = log_softmax(as_array(student)[place] / temperature)
                theirs = log_softmax(as_array(teacher)[place] / temperature)
                expected += temperature**2 * float((np.exp(theirs) * (theirs - ours)).sum())
                slope[place] = temperature * (np.exp(ours) - np.exp(theirs))
        loss = softened_kl_sum(student, teacher, targets, temperature)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-3)
        np.testing.assert_allclose(gradient(loss, student).numpy(), slope, atol=1e-4)

    @given(logits_and_targets())
    def test_is_nothing_for_a_student_that_equals_its_teacher(
        self, case: tuple[list[torch.Tensor], torch.Tensor]
    ) -> None:
        (logits,), targets = case
        assert softened_kl_sum(logits, logits.clone(), targets, 2.0).item() == pytest.approx(0, abs=1e-4)

    def test_mixes_divergence_and_cross_entropy_by_alpha(self, tiny_model: Path) -> None:
        student, teacher, batch = load(tiny_model), disturbed(load(tiny_model)), make_batch([12, 9])
        plain = Supervised().loss(student, batch)
        predictions = predict(student, batch)
        soft = Distillation(teacher, 2.0, 1.0).divergence_sum(predictions, batch)
        mixed = Supervised(distillation=Distillation(teacher, 2.0, 0.3)).loss(student, batch)
        assert mixed.item() == pytest.approx(0.3 * soft.item() + 0.7 * plain.item(), rel=1e-6)
        assert soft.item() > 0

    def test_the_teacher_gets_no_gradient(self, tiny_model: Path) -> None:
        student, teacher = load(tiny_model), disturbed(load(tiny_model))
        Supervised(distillation=Distillation(teacher, 2.0, 0.5)).loss(student, make_batch([8])).backward()
        assert all(parameter.grad is None for parameter in teacher.parameters())


class TestContrastive:
    @given(
        st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=3),
        st.sampled_from([0.1, 0.5, 1.5]),
        st.integers(0, 2**31),
    )
    def test_is_the_mean_margin_violation_of_the_pairs_of_each_answer_times_its_tokens(
        self, answers: list[list[int]], margin: float, seed: int
    ) -> None:
        """`answers`: per row the tokens of each packed record; one position between them does not count."""
        width = max(sum(row) + len(row) for row in answers)
        targets = torch.full((len(answers), width), IGNORED)
        segments = torch.full((len(answers), width), 99)
        hidden = torch.randn((len(answers), width, 4), generator=torch.Generator().manual_seed(seed))
        expected = 0.0
        for index, row in enumerate(answers):
            start = 0
            for number, size in enumerate(row):
                targets[index, start : start + size] = 7
                segments[index, start : start + size + 1] = number
                states = as_array(hidden)[index, start : start + size]
                start += size + 1
                for i, one in enumerate(states):
                    for j, other in enumerate(states):
                        if i != j:
                            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                            expected += max(0.0, margin - 1 + float(cosine)) / (size - 1)
        found = contrastive_sum(hidden, targets, segments, margin)
        assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    def test_long_answers_in_blocks_tell_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hidden = torch.randn((1, 23, 5), generator=torch.Generator().manual_seed(3), requires_grad=True)
        targets, segments = torch.zeros((1, 23), dtype=torch.long), torch.zeros((1, 23), dtype=torch.long)
        whole = contrastive_sum(hidden, targets, segments, 0.9)
        monkeypatch.setattr("tunewright_trainer.objectives.contrastive.BLOCK_ELEMENTS", 50)
        blocks = contrastive_sum(hidden, targets, segments, 0.9)
        assert blocks.item() == pytest.approx(whole.item(), rel=1e-5)
        torch.testing.assert_close(gradient(blocks, hidden), gradient(whole, hidden))

    def test_records_of_a_packed_row_are_told_apart_by_their_positions(self) -> None:
        batch = Batch(
            inputs={"position_ids": torch.tensor([[0, 1, 2, 0, 1, 0]])},
            labels=torch.zeros((1, 6), dtype=torch.long),
            units=6,
            tokens=6,
            samples=3,
        )
        assert segments_of(batch, torch.tensor([1, 2, 3, 5])).tolist() == [[1, 1, 2, 3]]

    def test_does_not_depend_on_the_micro_batch(self, tiny_model: Path) -> None:
        model, objective = load(tiny_model), Supervised(contrastive=(1.0, 0.9))
        together = objective.loss(model, make_batch([12, 9, 5]))
        apart = sum(objective.loss(model, make_batch([size], first)) for first, size in enumerate([12, 9, 5]))
        assert isinstance(apart, torch.Tensor)
        assert together.item() == pytest.approx(apart.item(), rel=1e-5)

    def test_training_on_it_pulls_tokens_apart(self, tiny_model: Path) -> None:
        model, batch = load(tiny_model), make_batch([30, 30])
        objective = Supervised(contrastive=(1.0, 0.9))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        seen = []
        for _ in range(15):
            (objective.loss(model, batch) / batch.units).backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(objective.figures()["contrastive"])
        assert seen[-1] < 0.7 * seen[0]


class TestDpo:
    @given(
        st.lists(st.tuples(*[st.floats(-80, 0)] * 4), min_size=1, max_size=5),
        st.sampled_from([0.01, 0.1, 1.0]),
        st.sampled_from([0.0, 0.1, 0.4]),
    )
    def test_is_the_negative_log_sigmoid_of_the_reward_margin(
        self, pairs: list[tuple[float, float, float, float]], beta: float, smoothing: float
    ) -> None:
        expected, margins = 0.0, []
        for chosen, rejected, reference_chosen, reference_rejected in pairs:
            margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
            margins.append(margin)
            expected += (1 - smoothing) * np.logaddexp(0, -margin) + smoothing * np.logaddexp(0, margin)
        found = dpo_sum(torch.tensor(margins), smoothing)
        assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)

    def test_is_log_2_per_pair_for_the_model_it_starts_from(self, tiny_model: Path) -> None:
        model, batch = load(tiny_model), make_batch([12, 9, 10, 7])
        batch = with_reference(batch, answer_log_probs(model, batch).detach())
        objective = Dpo(beta=0.1, label_smoothing=0.0)
        assert objective.loss(model, batch).item() == pytest.approx(2 * np.log(2), rel=1e-6)
        assert objective.figures() == pytest.approx(
            {"rewardMargin": 0, "rewardAccuracy": 0, "rewardChosen": 0, "rewardRejected": 0}, abs=1e-6
        )

    def test_gradient_is_that_of_the_paper(self, tiny_model: Path) -> None:
        """Eq. 7's gradient: -beta x sigmoid(-h) x (d log p(chosen) - d log p(rejected))."""
        model, batch, beta = load(tiny_model), make_batch([12, 9]), 0.5
        weight = model.get_parameter("model.layers.1.mlp.down_proj.weight")
        slopes, logs = [], []
        for index in range(2):
            logits = model(input_ids=batch.inputs["input_ids"][index : index + 1]).logits[0].log_softmax(-1)
            labels = batch.labels[index]
            log = sum(logits[t - 1, labels[t]] for t in range(1, len(labels)) if labels[t] != IGNORED)
            assert isinstance(log, torch.Tensor)
            slopes.append(as_array(gradient(log, weight)))
            logs.append(log.item())
        reference = torch.tensor([[logs[0] - 1.5], [logs[1] + 0.25]])
        margin = beta * (1.5 + 0.25)
        expected = -beta / (1 + np.exp(margin)) * (slopes[0] - slopes[1])
        loss = Dpo(beta=beta, label_smoothing=0.0).loss(model, with_reference(batch, reference))
        np.testing.assert_allclose(gradient(loss, weight).numpy(), expected, atol=1e-5)

    def test_the_reference_is_the_base_model_measured_once(self, tiny_model: Path, tmp_path: Path) -> None:
        """Of an adapter that is no longer at its start, as at a resume without the file, it is the base model, too."""
        pairs, cache = FivePairs(), tmp_path / "reference.npy"
        with torch.no_grad():
            expected = torch.cat(
                [answer_log_probs(load(tiny_model), pairs.batch(range(i, i + 1))) for i in range(5)], 1
            )
        adapted = disturbed(with_lora(load(tiny_model)), trainable=True)
        assert not torch.allclose(answer_log_probs(adapted, pairs.batch(range(5))), expected)
        strategy = Single(CPU, casting(CPU, None), scales_loss=False)
        strategy.wrap(adapted, lambda named: torch.optim.SGD([p for _, p in named if p.requires_grad]))

        def measure() -> torch.Tensor:
            return measure_reference(
                pairs, 5, cache, model=adapted, micro_batch=2, strategy=strategy, processes=Processes(CPU)
            )

        torch.testing.assert_close(measure(), expected)
        disturbed(adapted)
        torch.testing.assert_close(measure(), expected)
        referenced = ReferencedPairs(pairs, measure()).batch(range(1, 3))
        torch.testing.assert_close(referenced.extra[REFERENCE], expected[:, [3, 2]])

    def test_a_batch_that_does_not_count_has_no_loss(self, tiny_model: Path) -> None:
        batch = uncounted(with_reference(make_batch([12, 9]), torch.full((2, 1), -3.0)))
        assert Dpo(beta=0.1, label_smoothing=0.0).loss(load(tiny_model), batch).item() == 0


class FivePairs:
    """Five pairs of different lengths; their order is used where a batch is joined with its reference."""

    order = (4, 3, 2, 1, 0)

    def batch(self, positions: range) -> Batch:
        """Pair p has answers that end at 8 + p and 13 - p."""
        seeds = [*positions, *(100 + p for p in positions)]
        batch = make_batch([8 + p for p in positions] + [13 - p for p in positions], seeds=seeds)
        return Batch(batch.inputs, batch.labels, len(positions), batch.tokens, len(positions))


class TestEwc:
    def test_full_fisher_is_the_mean_squared_score_per_token(self, tiny_model: Path) -> None:
        model, batches = load(tiny_model), [make_batch([12]), make_batch([9], 1), make_batch([15], 2)]
        anchors = anchors_of(model)
        estimate_fisher(model, batches, anchors, casting(CPU, None))
        tokens = sum(batch.units for batch in batches)
        for name, parameter in model.named_parameters():
            expected = np.zeros(parameter.shape)
            for batch in batches:
                expected += as_array(gradient(plain_loss(model, batch), parameter)) ** 2
            (anchor,) = (a for a in anchors if getattr(a, "parameter", None) is parameter)
            np.testing.assert_allclose(anchor.importance.numpy(), expected / tokens, rtol=1e-3, atol=1e-7, err_msg=name)
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_full_penalty_is_half_lambda_times_the_weighted_squares(self, tiny_model: Path) -> None:
        model = load(tiny_model)
        anchors = anchors_of(model)
        estimate_fisher(model, [make_batch([12])], anchors, casting(CPU, None))
        ewc = ElasticWeights(anchors, 7.0)
        assert ewc.penalty().item() == 0
        before = {name: as_array(parameter).copy() for name, parameter in model.named_parameters()}
        disturbed(model)
        importance = {id(getattr(a, "parameter", None)): as_array(a.importance) for a in anchors}
        expected = 0.0
        for name, parameter in model.named_parameters():
            moved = as_array(parameter) - before[name]
            expected += 3.5 * float((importance[id(parameter)] * moved**2).sum())
        penalty = ewc.penalty()
        assert penalty.item() == pytest.approx(expected, rel=1e-4)
        for name, parameter in model.named_parameters():
            slope = 7.0 * importance[id(parameter)] * (as_array(parameter) - before[name])
            np.testing.assert_allclose(gradient(penalty, parameter).numpy(), slope, rtol=1e-3, atol=1e-7)

    def test_lora_fisher_is_that_of_the_base_weights(self, tiny_model: Path) -> None:
        """Through the adapter at its start, the base weights have the gradients that they have without it."""
        batches = [make_batch([12]), make_batch([9], 1)]
        plain, adapted = load(tiny_model), with_lora(load(tiny_model), rank=2)
        whole, anchors = anchors_of(plain), anchors_of(adapted)
        estimate_fisher(plain, batches, whole, casting(CPU, None))
        estimate_fisher(adapted, batches, anchors, casting(CPU, None))
        names = {id(p): name for name, p in plain.named_parameters()}
        expected = {names[id(getattr(a, "parameter", None))]: a.importance for a in whole}
        layers = {id(module): name for name, module in bare(adapted).named_modules()}
        assert len(anchors) == 14
        for anchor in anchors:
            assert isinstance(anchor, LoraAnchor)
            wanted = expected[f"{layers[id(anchor.layer)]}.weight"]
            torch.testing.assert_close(anchor.importance, wanted, rtol=1e-3, atol=1e-8)

    def test_lora_penalty_is_on_the_product_of_the_adapter(self, tiny_model: Path) -> None:
        model = with_lora(load(tiny_model), rank=2)
        anchors = anchors_of(model)
        estimate_fisher(model, [make_batch([12])], anchors, casting(CPU, None))
        ewc = ElasticWeights(anchors, 5.0)
        assert ewc.penalty().item() == 0
        disturbed(model, trainable=True)
        expected, slopes = 0.0, []
        for anchor in anchors:
            assert isinstance(anchor, LoraAnchor)
            a = as_array(anchor.layer.lora_A["default"].weight)
            b = as_array(anchor.layer.lora_B["default"].weight)
            scale, importance = 4.0 / 2, as_array(anchor.importance)
            expected += 2.5 * float((importance * (scale * b @ a) ** 2).sum())
            slopes.append((anchor.layer.lora_B["default"].weight, 5.0 * scale * (importance * (scale * b @ a)) @ a.T))
        penalty = ewc.penalty()
        assert penalty.item() == pytest.approx(expected, rel=1e-4)
        for weight, slope in slopes:
            np.testing.assert_allclose(gradient(penalty, weight).numpy(), slope, rtol=1e-3, atol=1e-7)

    @pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
    def test_fp16_weights_get_the_importance_that_fp32_ones_get(
        self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, adapted: bool
    ) -> None:
        """Even of what the model is so sure of that fp16 has no number for its gradients."""
        monkeypatch.setattr(
            "tunewright_trainer.objectives.ewc.cross_entropy_sum",
            lambda logits, targets: cross_entropy_sum(logits, targets) * 1e-9,
        )

        def fisher(model: Any, dtype: torch.dtype | None) -> list[float]:
            anchors = anchors_of(with_lora(model) if adapted else model)
            estimate_fisher(model, [make_batch([12])], anchors, casting(CPU, dtype))
            return [anchor.importance.sum().item() for anchor in anchors]

        narrow = load(tiny_model).half()
        before = [parameter.clone() for parameter in narrow.parameters()]
        expected = fisher(load(tiny_model), None)
        assert min(expected) > 0
        assert fisher(narrow, torch.bfloat16) == pytest.approx(expected, rel=0.1)
        after = [parameter for name, parameter in narrow.named_parameters() if "lora_" not in name]
        assert all(torch.equal(*both) for both in zip(before, after, strict=True))

    def test_gradient_checkpointing_changes_nothing(self, tiny_model: Path) -> None:
        def fisher(model: Any) -> list[torch.Tensor]:
            anchors = anchors_of(model)
            estimate_fisher(model, [make_batch([12])], anchors, casting(CPU, None))
            return [anchor.importance for anchor in anchors]

        checkpointed = load(tiny_model)
        checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
        torch.testing.assert_close(fisher(with_lora(checkpointed)), fisher(with_lora(load(tiny_model))))

    def test_refuses_dora(self, tiny_model: Path) -> None:
        with pytest.raises(StageError, match="DoRA"):
            anchors_of(with_lora(load(tiny_model), use_dora=True))


class TestForward:
    def test_logits_are_computed_only_where_a_token_counts(self, tiny_model: Path) -> None:
        model, batch = load(tiny_model), make_batch([12, 9])
        predictions = predict(model, batch, hidden=True)
        whole = model(**batch.inputs, output_hidden_states=True)
        assert skips_positions(model)
        assert predictions.positions.tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
        torch.testing.assert_close(predictions.logits, whole.logits[:, 3:11])
        torch.testing.assert_close(model.lm_head(predictions.hidden), predictions.logits)

    def test_an_adapter_does_not_hide_that(self, tiny_model: Path) -> None:
        assert skips_positions(with_lora(load(tiny_model)))

    @pytest.mark.parametrize(
        "method", [{"prefixTuning": {"numVirtualTokens": 4}}, {"adapter": {"adapterLen": 4}}], ids=["prefix", "adapter"]
    )
    def test_virtual_tokens_are_no_positions(self, tiny_model: Path, method: dict[str, Any]) -> None:
        """Distillation and the contrastive loss see the tokens of the record, and what is trained gets gradients."""
        base, batch = load(tiny_model), make_batch([12, 9])
        model = add_adapter(base, Method.model_validate(method))
        predictions = predict(model, batch, hidden=True)
        assert bare(model) is base
        assert predictions.hidden is not None
        assert predictions.hidden.shape == (2, 8, base.config.hidden_size)
        torch.testing.assert_close(base.lm_head(predictions.hidden), predictions.logits)
        distillation = Distillation(disturbed(load(tiny_model)), 2.0, 0.5)
        Supervised(distillation=distillation, contrastive=(1.0, 0.9)).loss(model, batch).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    def test_an_architecture_that_cannot_skip_positions_gives_the_same(self, tiny_model: Path) -> None:
        model, batch = load(tiny_model), make_batch([12, 9])
        expected = Supervised().loss(model, batch)
        forward = type(model).forward

        class Old(type(model)):  # type: ignore[misc]
            def forward(self, input_ids: Any, attention_mask: Any, use_cache: Any) -> Any:
                return forward(self, input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

        model.__class__ = Old
        assert not skips_positions(model)
        assert Supervised().loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-6)

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.integers(5, 20), min_size=1, max_size=4))
    def test_the_sum_over_rows_is_the_sum_of_the_rows(self, lengths: list[int]) -> None:
        torch.manual_seed(0)
        model = toy()
        together = Supervised().loss(model, make_batch(lengths))
        apart = sum(Supervised().loss(model, make_batch([n], i)).item() for i, n in enumerate(lengths))
        assert together.item() == pytest.approx(apart, rel=1e-5)

    def test_a_batch_without_anything_to_predict_has_no_loss(self, tiny_model: Path) -> None:
        batch = make_batch([6])
        batch.labels.fill_(IGNORED)
        assert Supervised(contrastive=(1.0, 0.5)).loss(load(tiny_model), batch).item() == 0


def load(path: Path) -> Any:
    """The tiny model in training mode."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).train()


def toy() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=128, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )


def with_lora(model: Any, rank: int = 4, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear", **options)
    return get_peft_model(model, config)


def disturbed(model: Any, *, trainable: bool = False) -> Any:
    """Random steps away from where the weights are; with `trainable` only of those that are trained."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad or not trainable:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def make_batch(lengths: list[int], first: int = 0, seeds: list[int] | None = None) -> Batch:
    """Rows of these lengths, padded; the tokens from the fifth one on are the assistant's."""
    longest = max(lengths)
    ids = torch.zeros((len(lengths), longest), dtype=torch.long)
    mask, labels = ids.clone(), torch.full_like(ids, IGNORED)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seeds[row] if seeds else first + row)
        ids[row, :length] = torch.randint(0, 100, (length,), generator=generator)
        mask[row, :length] = 1
        labels[row, 4:length] = ids[row, 4:length]
    return Batch(
        inputs={"input_ids": ids, "attention_mask": mask},
        labels=labels,
        units=int((labels != IGNORED).sum()),
        tokens=sum(lengths),
        samples=len(lengths),
    )


def with_reference(batch: Batch, reference: torch.Tensor) -> Batch:
    """A batch of pairs with what the reference says."""
    pairs = len(batch.labels) // 2
    return Batch(batch.inputs, batch.labels, pairs, batch.tokens, pairs, {REFERENCE: reference})


def plain_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood by PyTorch's own functions."""
    logits = model(**batch.inputs).logits[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits, batch.labels[:, 1:].flatten(), reduction="sum", ignore_index=IGNORED)
