"""`estimate`: the memory of a job by part, whether it fits, and what would help."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunewright_api.estimate import Estimate

_MEANING = {
    "weights": "parameters, with copies cast or gathered for computing",
    "gradients": "of what is trained",
    "optimizer": "moments and master copies",
    "activations": "what the backward pass needs, logits included",
    "buffers": "communication, and working space of the update",
    "objective": "a teacher, and what EWC remembers",
    "framework": "CUDA, NCCL, and what the allocator cannot use",
}
_SHOWN = 6


def render_estimate(name: str, estimate: Estimate, device: int | None) -> RenderableType:
    """The whole screen."""
    memory = estimate.memory
    table = Table("", "", "", box=None, padding=(0, 2, 0, 0), show_header=False)
    table.columns[1].justify = "right"
    for part, amount in memory.parts().items():
        if amount:
            table.add_row(part, gib(amount), Text(_MEANING[part], style="dim"))
    table.add_row(Text("in all", style="bold"), Text(gib(memory.total), style="bold"), _when(estimate))
    if memory.host:
        table.add_row("offloaded", gib(memory.host), Text("in the host's memory, per process", style="dim"))
    if memory.disk:
        table.add_row("on disk", gib(memory.disk), Text("on NVMe, per process, with a checkpoint's copy", style="dim"))
    if memory.checkpoint:
        table.add_row("saving", gib(memory.checkpoint), Text("in the host's memory, per process", style="dim"))
    share = f"{estimate.trainable / estimate.parameters:.2%}"
    head = f"{name}: {_count(estimate.parameters)} weights, {_count(estimate.trainable)} trained ({share}); per device"
    return Group(Text(head, style="bold"), table, *_verdict(estimate, device), *_advice(estimate))


def gib(amount: int) -> str:
    """Bytes as 23.4 GiB, or as MiB below one."""
    return f"{amount / 2**30:,.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:,.0f} MiB"


def _when(estimate: Estimate) -> Text:
    moment = {"Backward": "when the backward pass begins", "Update": "when the optimizer updates"}
    return Text(moment[estimate.memory.moment.value], style="dim")


def _verdict(estimate: Estimate, device: int | None) -> list[Text]:
    lacks = [Text(f"✗ {sentence}", style="red") for sentence in estimate.shortages]
    if device is None:
        return lacks
    left = device - estimate.memory.total
    if left < 0:
        return [Text(f"✗ {gib(-left)} more than the {gib(device)} of the GPU", style="red"), *lacks]
    return [Text(f"✓ fits into {gib(device)}: {gib(left)} are left", style="green"), *lacks]


def _advice(estimate: Estimate) -> list[RenderableType]:
    if not estimate.advice:
        return []
    table = Table("", "", box=None, padding=(0, 2, 0, 0), show_header=False)
    table.columns[0].justify = "right"
    for one in estimate.advice[:_SHOWN]:
        table.add_row(f"−{gib(one.saves)}", one.setting)
    return [Text("what would save memory, each alone:", style="dim"), table]


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
