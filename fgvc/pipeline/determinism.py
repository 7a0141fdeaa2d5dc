"""A config -> the seeds, float32 precision, threads and device of this process."""

from __future__ import annotations

import numpy as np
import torch

from fgvc.config.schema import Config
from fgvc.parallel.device import check_precision, choose_device


def set_up_process(conf: Config) -> torch.device:
    """Seed this process, set its precision and threads, and choose its device.

    Raises:
        UserError: the device does not exist, or does not compute in `precision`.
    """
    seed_everything(conf)
    device = choose_device(conf.runtime.device)
    check_precision(conf.precision, device)
    return device


def seed_everything(conf: Config) -> None:
    """Seed this process; set its float32 precision and its number of threads."""
    torch.manual_seed(conf.seed)
    np.random.seed(conf.seed)  # noqa: NPY002 - libraries draw from it
    set_fp32_precision(conf.matmul_precision)
    if conf.runtime.threads is not None:
        torch.set_num_threads(conf.runtime.threads)


def set_fp32_precision(matmul_precision: str) -> None:
    """Set the precision of float32 matrix products, convolutions and recurrences of this process.

    "highest" is IEEE float32. "high" and "medium" allow TF32; with "medium", oneDNN computes
    matrix products in bfloat16. torch.set_float32_matmul_precision sets only matrix products, and
    torch starts with TF32 convolutions, which include the patch embedding of every backbone.
    """
    exact = matmul_precision == "highest"
    torch.set_float32_matmul_precision(matmul_precision)
    # torch raises on reads if this contradicts the flags below
    torch.backends.cudnn.allow_tf32 = not exact
    for library in (torch.backends.cudnn, torch.backends.mkldnn):
        library.conv.fp32_precision = library.rnn.fp32_precision = "ieee" if exact else "tf32"
