"""What a stage was trained on, for its manifest: numbers of different machines differ in their last digits."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from mdm.train.ranks import Ranks

# A site's choices for the exchange between GPUs: in which order it adds up, and over what. Nothing that names a host.
NCCL_CHOICES = (
    "ALGO", "PROTO", "MIN_NCHANNELS", "MAX_NCHANNELS", "NVLS_ENABLE", "NET", "IB_DISABLE", "P2P_DISABLE", "SHM_DISABLE",
)  # fmt: skip


def nccl_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The choices that were made; nothing is NCCL's own."""
    return {name: environment[f"NCCL_{name}"] for name in NCCL_CHOICES if f"NCCL_{name}" in environment}


def machine(ranks: Ranks) -> dict[str, Any]:
    """Processes, devices and the libraries between them; no names of hosts."""
    facts: dict[str, Any] = {"processes": ranks.world, "device": "cpu", "torch": torch.__version__}
    if ranks.device.type == "cuda":
        properties = torch.cuda.get_device_properties(ranks.device)
        facts |= {
            "device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())), "nccl_settings": nccl_settings(),
        }  # fmt: skip
    else:
        facts |= {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return facts


def trained_on(before: list[dict[str, Any]], images: int, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The machines of a stage, each from the image count at which it took over."""
    kept = [entry for entry in before if entry["from_image"] < images]
    if kept and kept[-1] == {**facts, "from_image": kept[-1]["from_image"]}:
        return kept
    return [*kept, {**facts, "from_image": images}]
