"""`runtime.device` -> the device of this process, its precisions and its peak memory."""

from __future__ import annotations

import os
import resource
import sys

import torch

from fgvc.types import UserError


def choose_device(name: str) -> torch.device:
    """The device for `runtime.device`; one of several processes on GPUs gets its own GPU.

    Raises:
        UserError: the device does not exist; names the existing ones.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
        local_rank = os.environ.get("LOCAL_RANK")
        if local_rank is not None and name in ("auto", "cuda"):
            return torch.device(f"cuda:{local_rank}")
    if name == "auto":
        return torch.device(available[0])
    if name.partition(":")[0] not in available:
        raise UserError(
            f"runtime.device={name}: this machine has {', '.join(available)}; "
            "runtime.device=auto picks one"
        )
    return torch.device(name)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse fp16 where the device does not compute in it.

    Raises:
        UserError: names the device and its precisions.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "precision=fp16: runtime.device=cpu has fp32 and bf16; fp16 needs cuda or mps"
        )


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward pass: half precision if `precision` is bf16 or fp16."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def check_gpu_count(processes: int, device: str) -> None:
    """Check that every process has its own GPU if they run on GPUs.

    Raises:
        UserError: more processes than GPUs.
    """
    gpus = torch.cuda.device_count()
    if device in ("auto", "cuda") and torch.cuda.is_available() and processes > gpus:
        raise UserError(
            f"runtime.device={device}: {processes} processes on {gpus} "
            f"GPU{'s' if gpus > 1 else ''} (at most one process per GPU). Start fewer processes, "
            "or set runtime.device=cpu"
        )


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far: of the GPU if there is one, otherwise of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
