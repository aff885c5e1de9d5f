"""Pods in the tree."""

from datetime import datetime

from rich.text import Text
from rich.tree import Tree

from tunewright_cli.chain.model import Pod
from tunewright_cli.views.style import age, join

_SHOWN = 4
_BUSY = {"Running", "Pending", "ContainerCreating", "PodInitializing"}


def add_pods(branch: Tree, pods: list[Pod], now: datetime, wide: bool) -> None:
    """Pods that are not ready, and the first few that are."""
    troubled = [pod for pod in pods if not pod["ready"]]
    ready = [pod for pod in pods if pod["ready"]]
    shown = ready if wide else ready[: max(_SHOWN - len(troubled), 0)]
    for pod in [*troubled, *shown]:
        branch.add(_pod(pod, now))
    if rest := len(ready) - len(shown):
        branch.add(Text(f"and {rest} more, ready", style="dim"))


def _pod(pod: Pod, now: datetime) -> Text:
    word = pod["status"]
    colour = "green" if pod["ready"] else "cyan" if word in _BUSY else "dim" if word == "Terminating" else "red"
    return join(
        [
            Text.assemble(("●" if pod["ready"] else "○", colour), f" {pod['name']}"),
            Text(word, style=colour),
            pod["node"],
            Text(f"{pod['restarts']} restarts" if pod["restarts"] else "", style="yellow"),
            Text(age(pod["created"], now), style="dim"),
            Text(pod["message"], style=colour),
        ]
    )
