"""A model divided into pipeline stages, each of which is the same model without the layers of the others.

A foreign decoder layer is replaced by one that passes its input on. So names, layer indices and the architecture's own
forward (masks, rotary embedding, what a layer's index decides) stay what they are, and nothing is written per
architecture. What an architecture does between embedding and first layer would happen in every stage: therefore
`division.PIPELINED` lists those that do nothing there, and a test compares each with the undivided model.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tunewright_trainer.objectives.forward import bare
from tunewright_trainer.parallel.division import check_type, divide


class PassThrough(nn.Module):  # type: ignore[misc]
    """In the place of a layer that another stage holds."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The input."""
        return hidden_states


class StageModel(nn.Module):  # type: ignore[misc]
    """What one process of a pipeline computes. Takes the model apart in place.

    Attributes:
        tied: The weight of embedding and head where they share one and both ends hold a copy of it; else None.
        boundary: dtype of what goes from stage to stage.
        width: Size of the hidden states.
    """

    def __init__(self, model: nn.Module, stage: int, stages: int) -> None:
        super().__init__()
        self.module = model
        self.first, self.last = stage == 0, stage == stages - 1
        causal: Any = bare(model)
        check_type(causal.config.model_type)
        decoder = causal.get_decoder()
        weight = decoder.embed_tokens.weight
        tied = causal.lm_head.weight is weight
        self.boundary: torch.dtype = weight.dtype
        self.width: int = weight.shape[1]
        self.tied: nn.Parameter | None = weight if tied and weight.requires_grad and self.first != self.last else None
        own = divide(len(decoder.layers), stages)[stage]
        for index in range(len(decoder.layers)):
            if index not in own:
                decoder.layers[index] = PassThrough()
        if not self.first and not (self.last and tied):
            decoder.embed_tokens = nn.Identity()
        if not self.last:
            decoder.norm = nn.Identity()
            causal.lm_head = nn.Identity()

    def hidden(self, inputs: dict[str, Any], received: Tensor | None) -> Tensor:
        """The hidden states after this stage's layers, of shape (rows, length, width), for a stage before the last.

        Args:
            inputs: Of the whole model.
            received: What the stage before computed; None in the first one.
        """
        causal: Any = bare(self.module)
        fed = inputs if received is None else _fed(inputs, received)
        output: Tensor = causal.get_decoder()(**fed, use_cache=False).last_hidden_state
        output = output.to(self.boundary)
        # A stage whose layers are all frozen has no gradients to compute, but its neighbour sends some.
        return output if output.requires_grad or not torch.is_grad_enabled() else output.detach().requires_grad_()

    def fed_with(self, received: Tensor | None) -> nn.Module:
        """The last stage as an objective sees it: a model that is called with the inputs of the whole one."""
        return self.module if received is None else Fed(self.module, received)


class Fed(nn.Module):  # type: ignore[misc]
    """A model whose embedding was computed elsewhere."""

    def __init__(self, model: nn.Module, received: Tensor) -> None:
        super().__init__()
        self.module, self._received = model, received

    def forward(self, **inputs: Any) -> Any:
        """The model's own output."""
        return self.module(**_fed(inputs, self._received))


def _fed(inputs: dict[str, Any], received: Tensor) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "input_ids"} | {"inputs_embeds": received}
