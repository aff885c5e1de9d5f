"""What goes together with which method and optimisation: rules of FineTuneJobSpec, checked by the apiserver."""

from tunewright_api.base import Rule

_UNMERGEABLE = "(has(self.method.prefixTuning) || has(self.method.adapter))"
_MERGES = "(!has(self.export) || !has(self.export.merge) || self.export.merge)"
_EIGHT_BIT = "self.hyperparameters.optimizer in ['AdamW8bit', 'PagedAdamW8bit']"

METHOD_RULES = (
    Rule(
        f"!{_UNMERGEABLE} || !{_MERGES}",
        "method.prefixTuning and method.adapter cannot be merged into the base, and vLLM does not serve them: write "
        "`export: {merge: false}` to get an adapter for peft, or use lora to get a version that can be served",
    ),
    Rule(
        f"{_MERGES} || !has(self.method.full)",
        "export.merge: false exports an adapter, and method.full trains none: remove it, or use lora",
    ),
    Rule(
        "!has(self.method.qlora) || !has(self.distributed) || has(self.distributed.ddp) || "
        "(has(self.distributed.deepspeed) && self.distributed.deepspeed.zeroStage < 3)",
        "method.qlora keeps the whole base in 4 bits in every process: use distributed.ddp, or deepspeed with "
        "zeroStage 0 to 2, or lora with what divides the weights",
    ),
    Rule(
        f"!{_UNMERGEABLE} || !has(self.distributed) || !has(self.distributed.pipeline)",
        "distributed.pipeline divides the layers of the base: use method.full or lora with it",
    ),
    Rule(
        "!has(self.method.prefixTuning) || !self.hyperparameters.gradientCheckpointing",
        "method.prefixTuning hands its keys and values to the layers from outside, which gradientCheckpointing cannot "
        "recompute: set gradientCheckpointing to false",
    ),
    Rule(
        f"!self.hyperparameters.packing || !({_UNMERGEABLE} || (has(self.objective) && has(self.objective.dpo)))",
        "hyperparameters.packing puts several records into one row, which method.prefixTuning, method.adapter and "
        "objective.dpo cannot do: set it to false",
    ),
    Rule(
        "!self.hyperparameters.packing || self.hyperparameters.microBatchSize >= 2",
        "hyperparameters.packing puts the records of one micro batch into one row: set microBatchSize to the number of "
        "records that shall share it, 2 or more, or packing to false",
    ),
    Rule(
        f"!({_EIGHT_BIT}) || !has(self.distributed) || has(self.distributed.ddp)",
        "hyperparameters.optimizer: the 8-bit optimizers quantise whole tensors, which deepspeed, fsdp and pipeline "
        "divide: use AdamW with them (zeroStage 1 already divides its states)",
    ),
    Rule(
        "self.hyperparameters.precision != 'FP8' || has(self.method.full)",
        "hyperparameters.precision: FP8 is for method.full, where most of the time goes into products of trained "
        "weights: use BF16 with the other methods",
    ),
    Rule(
        "!self.hyperparameters.torchCompile || !has(self.distributed) || has(self.distributed.ddp)",
        "hyperparameters.torchCompile works with one process and with distributed.ddp: set it to false",
    ),
    Rule(
        "!has(self.hyperparameters.earlyStopping) || (has(self.evaluation) && has(self.evaluation.everySteps))",
        "hyperparameters.earlyStopping looks at the loss on held-out records while training: say how often in "
        "evaluation.everySteps",
    ),
)
