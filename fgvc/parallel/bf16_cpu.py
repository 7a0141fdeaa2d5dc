"""This machine's CPU -> whether it computes in bfloat16, and notes on `precision` that follow.

Without such instructions every product is converted to float32 and back: measured on one machine,
bf16 then takes 7 times as long as fp32. With them it takes about half as long.
torch is not asked, because a dry run does not wait for it.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

from fgvc import untrusted

CPUINFO = Path("/proc/cpuinfo")  # Linux
FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # bf16: of an ARM processor
MANY = 10_000  # images from which a faster precision is worth a line


@functools.cache
def has_bf16() -> bool | None:
    """Whether this CPU has bfloat16 instructions; None if the system does not report it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return result.stdout.strip() == "1"  # an Intel Mac has no such entry
    try:
        lines = untrusted.read_text(CPUINFO).splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:  # of the first processor
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return bool(FLAGS & set(value.split()))
    return None


def slow_note(precision: str, device: str) -> str | None:
    """A note on bf16 that this CPU only emulates. device: its type, such as "cpu"."""
    if precision != "bf16" or device != "cpu" or has_bf16() is not False:
        return None
    return (
        "precision=bf16: this CPU has no bf16 instructions, so bf16 takes several times as long as "
        "fp32 here (7 times on one such machine). Set precision=fp32"
    )


def fast_note(precision: str, device: str, images: int, task: str = "probe") -> str | None:
    """A note on bf16 where it would save time, and how `task` checks what it changes.

    images: to be forwarded by the whole command.
    """
    if precision != "fp32" or device != "cpu" or images < MANY or not has_bf16():
        return None
    checks = {
        "probe": ", and task.cascade=512 task.certify=299 repeat in fp32 what that could change "
        "and check the rest",
        "zero_shot": ", and task.certify=299 checks some of them in fp32",
    }
    return (
        f"precision=fp32: this CPU has bf16 instructions; {images} forwards take about half as "
        f"long with precision=bf16{checks.get(task, '')}"
    )
