"""A checkpoint of an fgvc run -> the tensors of its backbone under the library's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files.checkpoint_metadata import read_facts
from fgvc.model.backbone.weights.errors import as_user_errors
from fgvc.store import tensor_file
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

TRUNK_PREFIX = "backbone.trunk."  # of the classifier, in front of the library's names


@as_user_errors()
def read(path: Path) -> dict[str, Tensor] | None:
    """The verified tensors of the backbone, as the library names them in a whole model.

    Returns:
        None if the file is no checkpoint of fgvc.

    Raises:
        UserError: the file changed since it was written, or it holds no backbone.
    """
    if (metadata := read_facts(path)) is None:
        return None
    tensor_file.verify(path)
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


@as_user_errors()
def writing_run(path: Path) -> Mapping[str, Any] | None:
    """The run that wrote a checkpoint and the weights it started from; None for other files.

    `weights` describes the previous run in the same way, if it was a run of fgvc too.

    Raises:
        UserError: the metadata of the checkpoint are damaged or of another version.
    """
    if (metadata := read_facts(path)) is None:
        return None
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
