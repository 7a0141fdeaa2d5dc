"""`runtime.device` -> the device of this process, its precisions and its peak memory."""

from __future__ import annotations

import os
import resource
import sys

import torch

from fgvc.types import UserError


def choose_device(name: str) -> torch.device:
    """The device that `runtime.device` means here.

    Raises:
        UserError: it is not there; names those that are.
    """
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here.insert(0, "cuda")
    if name == "auto":
        return torch.device(here[0])
    if name.partition(":")[0] not in here:
        raise UserError(
            f"runtime.device={name}: this machine has {', '.join(here)}; "
            "runtime.device=auto picks one"
        )
    return torch.device(name)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse fp16 where the device computes in something else, or not at all.

    Raises:
        UserError: names the device and what it has.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "precision=fp16: runtime.device=cpu has fp32 and bf16; fp16 needs cuda or mps"
        )


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward pass: half precision if `precision` is bf16 or fp16."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def peak_memory_mib(device: torch.device) -> float:
    """Most memory in use so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def device_of(name: str) -> str:
    """`runtime.device` for this rank: its own GPU where there are several processes."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{local}"


def check_devices(processes: int, device: str) -> None:
    gpus = torch.cuda.device_count()
    if device in ("auto", "cuda") and torch.cuda.is_available() and processes > gpus:
        raise UserError(
            f"{processes} processes on {gpus} GPU{'s' if gpus > 1 else ''}: one each at most; "
            "fewer processes, or runtime.device=cpu"
        )
