"""What to do about a server pod that fails: one sentence per reason, next to what the pod itself says."""

from tunewright_operator.observe.pod_problem import Problem

_HINTS = {
    "OutOfMemory": "raise spec.resources.memory, or lower spec.engine.maxModelLen or spec.engine.cpuKVCacheGiB",
    "Unschedulable": "lower spec.resources, correct spec.scheduling, or add a node that fits",
    "DigestMismatch": "restore the artifact's files, or refer to another version",
    "InputNotReadable": "make the files of the claim readable for user or group 65532",
    "InvalidConfig": "correct spec.engine",
    "PodsRefused": "raise the quota or correct what the admission of the namespace refuses",
}


def hint(namespace: str, problem: Problem) -> str:
    """What to do; where nothing better is known, where to look."""
    known = _HINTS.get(problem.reason)
    if known:
        return known
    previous = " --previous" if problem.exit_code is not None else ""
    container = f" -c {problem.container}" if problem.container else ""
    return f"read its log: kubectl -n {namespace} logs {problem.pod}{container}{previous}" if problem.pod else ""


def explain(namespace: str, problem: Problem) -> str:
    """Problem and hint as one sentence."""
    subject = f"pod {problem.pod}: " if problem.pod else ""
    advice = hint(namespace, problem)
    return f"{subject}{problem.message}" + (f". What to do: {advice}" if advice else "")
