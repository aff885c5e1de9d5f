"""The environment of NCCL and of PyTorch's GPU allocator: what is added, and why. Pure but for `observe_hardware`.

Made for nodes of 8 A100 with a network card per GPU or two. Generated and unit-tested; not run where there is no GPU.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_ACTIVE = "4: ACTIVE"


@dataclass(frozen=True)
class Hardware:
    """What a pod sees.

    Attributes:
        nodes: Pods of the run.
        gpus: GPUs of this pod.
        interfaces: Network interfaces.
        adapters: InfiniBand or RoCE adapters with an active port.
    """

    nodes: int
    gpus: int
    interfaces: Sequence[str] = ()
    adapters: Sequence[str] = ()


class Added(NamedTuple):
    """A variable and why it is set."""

    value: str
    reason: str


def tune(environment: Mapping[str, str], hardware: Hardware) -> dict[str, Added]:
    """Variables to add. What the user set stays as it is, under its older name, too."""
    if not hardware.gpus:
        return {}
    added = {
        "PYTORCH_ALLOC_CONF": Added(
            "expandable_segments:True", "segments that grow leave less memory in blocks that fit nothing"
        )
    }
    if hardware.gpus * hardware.nodes > 1:
        added["NCCL_DEBUG"] = Added("WARN", "an error of NCCL tells its cause in this log")
    if hardware.nodes > 1:
        added |= _between_nodes(hardware)
    older = {"PYTORCH_ALLOC_CONF": "PYTORCH_CUDA_ALLOC_CONF"}
    return {
        name: setting
        for name, setting in sorted(added.items())
        if name not in environment and older.get(name) not in environment
    }


def observe_hardware(nodes: int, root: Path = Path("/")) -> Hardware:
    """Look at this pod's devices."""
    devices = root / "dev"
    gpus = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    ports = sorted((root / "sys/class/infiniband").glob("*/ports/*/state"))
    return Hardware(
        nodes=nodes,
        gpus=len(gpus),
        interfaces=tuple(sorted(path.name for path in (root / "sys/class/net").glob("*"))),
        adapters=tuple(dict.fromkeys(port.parts[-4] for port in ports if port.read_text().strip() == _ACTIVE)),
    )


def _between_nodes(hardware: Hardware) -> dict[str, Added]:
    added = {}
    if "eth0" in hardware.interfaces:
        added["NCCL_SOCKET_IFNAME"] = Added("=eth0", "the pod network: other interfaces may not reach the other pods")
    if hardware.adapters:
        return added | {
            "NCCL_IB_HCA": Added(
                "=" + ",".join(hardware.adapters), "all adapters with an active port, and none that is down"
            ),
            "NCCL_IB_TIMEOUT": Added(
                "22", "a link that flaps is retried for 2 minutes (7 x 4.096 us x 2^22) instead of half a minute"
            ),
        }
    return added | {
        "NCCL_IB_DISABLE": Added("1", "this pod has no active InfiniBand or RoCE adapter: sockets at once"),
        "NCCL_SOCKET_NTHREADS": Added("4", "one thread does not fill a 100 Gbit/s network"),
        "NCCL_NSOCKS_PERTHREAD": Added("4", "nor does one connection"),
    }
