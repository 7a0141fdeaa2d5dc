"""This machine and this commit -> env_stamp.json, the environment in which a number was computed.

Whatever is absent (git, conda, a GPU driver) is null, never an error.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import platform
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.record.git_command import TIMEOUT
from fgvc.record.git_state import CODE, GitState, git_state
from fgvc.store import hashing

if TYPE_CHECKING:
    import torch

__all__ = ["CODE", "GitState", "environment", "git_state", "schema", "validate"]

PACKAGES = {
    "torch_version": "torch",
    "torchvision_version": "torchvision",
    "ml_collections_version": "ml-collections",
    "timm_version": "timm",
    "transformers_version": "transformers",
    "open_clip_version": "open-clip-torch",
    "hydra_version": "hydra-core",
    "tensorboard_version": "tensorboard",
    "fiftyone_version": "fiftyone",
    "torchcodec_version": "torchcodec",
}
FP32_FLAGS = (  # torch.backends.<name>.fp32_precision
    "cuda.matmul",
    "cudnn.conv",
    "cudnn.rnn",
    "mkldnn.matmul",
    "mkldnn.conv",
    "mkldnn.rnn",
)


def environment(device: torch.device) -> dict[str, object]:
    """Versions, hardware and digests of the environment, as the stamp's schema names them."""
    import torch  # here: an early error message must not wait for it

    cuda = device.type == "cuda"
    return {
        **installed(),
        "cuda_version": torch.version.cuda if cuda else None,
        "cudnn_version": str(torch.backends.cudnn.version()) if cuda else None,
        "driver_version": (query_gpus("driver_version") or [None])[0],
        "gpu_name": torch.cuda.get_device_name(device) if cuda else None,
        "gpu_count": torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "device": device.type,
        "cpu_count": usable_cores(),
        "threads": torch.get_num_threads(),
        "fp32_precision": fp32_precision(),
        "requirements_checksum": requirements_checksum(),
        **environment_hash(),
    }


def installed() -> dict[str, str | None]:
    """System, machine and versions; all are covered by `environment_hash`."""
    return {
        "os_version": platform.platform(),
        "machine": platform.machine(),
        "python_version": platform.python_version(),
        **{key: version(name) for key, name in PACKAGES.items()},
    }


def fp32_precision() -> dict[str, str]:
    """The precision of float32 matrix products, convolutions and RNNs: ieee, tf32, ..."""
    import torch

    return {name: attrgetter(f"{name}.fp32_precision")(torch.backends) for name in FP32_FLAGS}


@cache
def environment_hash() -> dict[str, str]:
    """A digest of the installed packages, and the method by which it was computed.

    The digest always covers the sorted packages, because conda's history contains no pip package
    and two different torch installs could have the same hash. In a conda environment it covers
    conda's export too. Only the site folders are searched: importing setuptools adds its vendored
    packages to sys.path, and the hash must not depend on what this process has imported.
    """
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    distributions = importlib.metadata.distributions(path=[*site.getsitepackages(), *user])
    metadata = [distribution.metadata for distribution in distributions]  # each read parses a file
    installed = {f"{item['Name'].lower()}=={item['Version']}" for item in metadata}
    lines = [sys.version, platform.platform(), *sorted(installed)]
    method = "packages"
    if (Path(sys.prefix) / "conda-meta").is_dir() and shutil.which("conda"):
        export = _run("conda", "env", "export", "--from-history", "--prefix", sys.prefix)
        if export:
            lines.append(export.decode())
            method = "conda env export --from-history + packages"
    return {
        "env_hash": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "env_hash_method": method,
    }


def requirements_checksum() -> str | None:
    """SHA256 of the checkout's requirements.txt; None outside a checkout."""
    lock = CODE / "requirements.txt"
    return hashing.sha256_file(lock) if lock.is_file() else None


def schema() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) that every stamp satisfies."""
    file = importlib.resources.files("fgvc.record") / "env_stamp.schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


def validate(stamp: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stamp itself, checked against its schema; an invalid stamp is a bug in fgvc."""
    import jsonschema

    errors = jsonschema.Draft202012Validator(schema()).iter_errors(stamp)
    messages = [error.message for error in errors]
    assert not messages, f"env_stamp.json breaks its schema: {'; '.join(messages)}"
    return stamp


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def version(package: str) -> str | None:
    """The version of an installed package; None if it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def query_gpus(field: str) -> list[str]:
    """A field of nvidia-smi for each GPU, without importing torch; empty without a driver."""
    out = _run("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader")
    return [line.strip() for line in out.decode().splitlines()] if out else []


def _run(*command: str) -> bytes | None:
    """Standard output of a command; None if the command is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
