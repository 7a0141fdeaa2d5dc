"""This machine and this code -> plain data that a table of measurements is read with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import psutil
import torch

from benchmarks.side_by_side import best_times

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "amx_int8", "asimd", "bf16")
SIDE = 2048  # of the matrices that measure the machine's matrix rate


def describe() -> dict[str, object]:
    """The processor, memory, matrix rates, versions and device."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": cpu_model(),
        "cores": len(psutil.Process().cpu_affinity() or [])
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "features": _cpu_features(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gflops_float32": round(matrix_rate(torch.float32) / 1e9, 1),
        "gflops_float64": round(matrix_rate(torch.float64) / 1e9, 1),
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str | None:
    """The commit of the checkout, with + if tracked files differ from it; None without Git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True).stdout
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.decode().strip() + "+" * (changed != 0)


def cpu_model() -> str:
    """The name of the processor."""
    if match := re.search(r"model name\s*: (.+)", _cpuinfo()):
        return match[1].strip()
    return platform.processor() or platform.machine()


def matrix_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a square product on the CPU."""
    left, right = torch.randn(2, SIDE, SIDE, dtype=dtype)
    (seconds,) = best_times(lambda: left @ right)
    return 2 * SIDE**3 / seconds


def _cpu_features() -> list[str]:
    match = re.search(r"^(?:flags|Features)\s*: (.+)", _cpuinfo(), re.MULTILINE)
    present = set(match[1].split()) if match else set()
    return [name for name in FEATURES if name in present]


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8") if file.is_file() else ""
