"""How a job fails: a reason for programs, and a sentence that names the place, the cause and the remedy."""

from dataclasses import dataclass

from tunewright_operator.policies.loss import Loss

_REMEDIES = {
    "OutOfMemory": "raise resourcesPerNode.memory, or lower hyperparameters.microBatchSize or sequenceLength",
    "InvalidConfig": "correct the field it names",
    "InvalidData": "correct the dataset",
    "InputNotReadable": "make the files readable for user or group 65532",
    "VolumeFull": "free or enlarge the claim of output.uri",
    "OutputNotWritable": "make the claim of output.uri writable for user or group 65532, or take a free output.version",
    "Diverged": "lower hyperparameters.learningRate",
}
_NEXT = "then commit a FineTuneJob with a new name"


@dataclass(frozen=True)
class Failure:
    """The end of a job that will not be tried again."""

    reason: str
    message: str


def describe_failure(stage: str, loss: Loss) -> Failure:
    """The failure of a stage that is not tried again."""
    remedy = _REMEDIES.get(loss.cause)
    sentence = f"{stage} failed: {loss.message.rstrip('.')}"
    place = f" ({loss.where})" if loss.where else ""
    advice = f". What to do: {remedy}, {_NEXT}" if remedy else ""
    return Failure(loss.cause, f"{sentence}{place}{advice}")
