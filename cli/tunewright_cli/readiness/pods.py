"""Checks of pods: are they there, have they started, do they stay up."""

from collections.abc import Sequence

from tunewright_cli.chain.model import Object, Pod
from tunewright_cli.chain.pods import describe_pods
from tunewright_cli.readiness.model import Outcome, Step

_FIXES = {
    "Unschedulable": "ask for less in resources, correct scheduling, or add a node that fits",
    "ErrImagePull": "correct the image in the chart's values, or make it available to the nodes",
    "ImagePullBackOff": "correct the image in the chart's values, or make it available to the nodes",
    "ErrImageNeverPull": "put the image on the node, or set images.pullPolicy of the chart to IfNotPresent",
    "InvalidImageName": "correct the image in the chart's values",
    "CreateContainerConfigError": "create the Secret or ConfigMap that the message names",
    "OOMKilled": "raise resources.memory, or ask for less: a shorter maxModelLen, a smaller batch",
    "Evicted": "free disk or memory of the node, or choose another one in scheduling",
}
_STARTING = {"Pending", "ContainerCreating", "PodInitializing"}


def started_step(pods: Sequence[Object], title: str, namespace: str) -> Step:
    """Whether a node has taken every pod and its container was created."""
    described = describe_pods(pods)
    for pod in described:
        if pod["status"] in _FIXES and pod["status"] not in {"OOMKilled", "Evicted"}:
            return _failed(title, pod, _FIXES[pod["status"]], log=False)
    waiting = [pod for pod in described if pod["status"] in _STARTING]
    if waiting:
        message = f"pod {waiting[0]['name']} is {waiting[0]['status']}"
        fix = f"wait; kubectl -n {namespace} describe pod {waiting[0]['name']} tells more"
        return Step(title, Outcome.WAITING, message, fix, (("Pod", waiting[0]["name"]),))
    return Step(title, Outcome.PASSED)


def running_step(pods: Sequence[Object], title: str, namespace: str, hint: str = "") -> Step:
    """Whether every container that has started stays up; `hint` is what the operator says to do."""
    for pod in describe_pods(pods):
        broken = pod["status"] not in {"Running", "Succeeded", "Completed", "Terminating"} | _STARTING
        if broken and (pod["status"] not in _FIXES or pod["status"] in {"OOMKilled", "Evicted"}):
            previous = " --previous" if pod["restarts"] else ""
            log = f"correct what its log says; all of it: kubectl -n {namespace} logs {pod['name']}{previous}"
            fix = hint or _FIXES.get(pod["status"]) or log
            return _failed(title, pod, fix, log=True)
    return Step(title, Outcome.PASSED)


def _failed(title: str, pod: Pod, fix: str, *, log: bool) -> Step:
    message = f"pod {pod['name']}: {pod['status']}" + (f": {pod['message'].strip()}" if pod["message"] else "")
    return Step(title, Outcome.FAILED, message, fix, (("Pod", pod["name"]),), pod["name"] if log else "")
