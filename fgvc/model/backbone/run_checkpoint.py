"""A checkpoint of an fgvc run -> the tensors of its backbone under the library's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files import checkpoint_metadata
from fgvc.store import tensor_file
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

TRUNK_PREFIX = "backbone.trunk."  # of the classifier, in front of the library's names


def read(path: Path) -> dict[str, Tensor] | None:
    """The verified tensors of the backbone, as the library names them in a whole model.

    Returns:
        None if the file is no checkpoint of fgvc.

    Raises:
        UserError: the file changed since it was written, or it holds no backbone.
    """
    if tensor_file.read_facts(path) is None:
        return None
    metadata = _check_metadata(path, tensor_file.verify(path))
    from safetensors import safe_open

    prefix = LIBRARIES[metadata["config"]["backbone"]["library"]].tower
    try:
        with safe_open(untrusted.require_regular(path), framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(TRUNK_PREFIX)]  # noqa: SIM118
            tensors = {prefix + name[len(TRUNK_PREFIX) :]: file.get_tensor(name) for name in names}
    except OSError:
        raise
    except Exception as error:  # a damaged header raises many types of exceptions
        raise UserError(f"weights {path}: a damaged checkpoint of fgvc: restore it") from error
    if not tensors:
        raise UserError(f"weights {path}: a checkpoint of fgvc that holds a head and no backbone")
    return tensors


def writing_run(path: Path) -> Mapping[str, Any] | None:
    """The run that wrote a checkpoint and the weights it started from; None for other files.

    `weights` describes the previous run in the same way, if it was a run of fgvc too.

    Raises:
        UserError: the metadata of the checkpoint are damaged or of another version.
    """
    metadata = tensor_file.read_facts(path)
    if metadata is None:
        return None
    _check_metadata(path, metadata)
    return {
        "task": metadata["config"]["task"]["name"],
        "dataset": metadata["config"]["dataset"]["name"],
        "config_hash": metadata["config_hash"],
        "manifest_digest": metadata["answer"]["manifest_digest"],
        "split_digest": metadata["split_digest"],
        "images": metadata["fit"]["images"],
        "validation": metadata["fit"]["validation"],
        "exported_from": metadata.get("exported_from"),
        "weights": dict(metadata["backbone"]["weights"]),
    }


def _check_metadata(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Raises UserError if the metadata are not those of a checkpoint."""
    try:
        checkpoint_metadata.check(metadata)
    except ValueError as error:
        raise UserError(
            f"weights {path}: a damaged checkpoint, or of another version of fgvc: {error}. "
            "Restore the file, or repeat the run that made it"
        ) from error
    return metadata
