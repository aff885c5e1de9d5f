"""What goes together with which parallelism: rules of FineTuneJobSpec, checked by the apiserver."""

from tunewright_api.base import Rule

# Processes per pod, as the operator counts them: numProcPerNode, or one per GPU, or one.
_GPUS = "string(self.resourcesPerNode['nvidia.com/gpu'])"
_PROCESSES = (
    "has(self.numProcPerNode) ? self.numProcPerNode : "
    "has(self.resourcesPerNode) && 'nvidia.com/gpu' in self.resourcesPerNode && "
    f"{_GPUS}.matches('^[1-9][0-9]{{0,3}}$') ? int({_GPUS}) : 1"
)
_NO_PIPELINE = "!has(self.distributed) || !has(self.distributed.pipeline)"

DISTRIBUTED_RULES = (
    Rule(
        "has(self.distributed) || (self.numNodes == 1 && (!has(self.numProcPerNode) || self.numProcPerNode == 1))",
        "more than one process needs `distributed`, for example `distributed: {deepspeed: {zeroStage: 0..3}}`: add "
        "it, or set numNodes and numProcPerNode to 1",
    ),
    Rule(
        "has(self.distributed) || !has(self.resourcesPerNode) || !('nvidia.com/gpu' in self.resourcesPerNode)"
        " || string(self.resourcesPerNode['nvidia.com/gpu']) in ['0', '1'] || has(self.numProcPerNode)",
        "several GPUs per node run one process each: add `distributed`, for example "
        "`distributed: {deepspeed: {zeroStage: 0..3}}`",
    ),
    Rule(
        f"{_NO_PIPELINE} || (self.numNodes * ({_PROCESSES})) % self.distributed.pipeline.stages == 0",
        "distributed.pipeline.stages must divide the number of processes, numNodes x numProcPerNode",
    ),
    Rule(
        f"{_NO_PIPELINE} || self.hyperparameters.gradientAccumulationSteps >= self.distributed.pipeline.stages",
        "a pipeline needs at least as many micro batches as stages: set hyperparameters.gradientAccumulationSteps "
        "to distributed.pipeline.stages or more",
    ),
    Rule(
        f"{_NO_PIPELINE} || !has(self.objective) || (!has(self.objective.dpo) && (!has(self.objective.supervised) || "
        "(!has(self.objective.supervised.distillation) && !has(self.objective.supervised.contrastive))))",
        "distributed.pipeline gives only its last stage what dpo, distillation and contrastive compare: use "
        "distributed.ddp, deepspeed or fsdp with them",
    ),
    Rule(
        "!(self.hyperparameters.precision in ['FP16', 'FP8']) || !has(self.distributed) || "
        "!(has(self.distributed.fsdp) || has(self.distributed.pipeline))",
        "distributed.fsdp and distributed.pipeline compute in BF16 or FP32: set hyperparameters.precision to one of "
        "them, or use distributed.ddp or deepspeed",
    ),
    Rule(
        "self.hyperparameters.precision != 'FP16' || !has(self.distributed) || !has(self.distributed.deepspeed) || "
        "self.distributed.deepspeed.zeroStage != 0",
        "distributed.deepspeed.zeroStage 0 does not scale the loss, which FP16 needs: use distributed.ddp, or "
        "zeroStage 1",
    ),
)
