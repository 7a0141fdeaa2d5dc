"""A checkpoint that a run of fgvc wrote -> its backbone's tensors under the library's names.

The head is left aside. Any other file is none of this module's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.weight_files import checkpoint_metadata
from fgvc.store import tensor_file
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

TRUNK_PREFIX = "backbone.trunk."  # of the classifier, in front of the library's names
TOWER_PREFIX = {
    "timm": "",
    "open_clip": "visual.",
    "transformers": "vision_model.",
}  # in whole models


def read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of the backbone, verified, as the library would name them in a whole model.

    Returns:
        None if the file is no checkpoint of fgvc.

    Raises:
        UserError: the bytes changed since it was written, or it holds no backbone.
    """
    if tensor_file.read_facts(path) is None:
        return None
    facts = _check_metadata(path, tensor_file.verify(path))
    from safetensors import safe_open

    tower = TOWER_PREFIX[facts["config"]["backbone"]["library"]]
    try:
        with safe_open(untrusted.require_regular(path), framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(TRUNK_PREFIX)]  # noqa: SIM118
            held = {tower + name[len(TRUNK_PREFIX) :]: opened.get_tensor(name) for name in names}
    except OSError:
        raise
    except Exception as error:  # a damaged header raises many types of exceptions
        raise UserError(f"weights {path}: a damaged checkpoint of fgvc: restore it") from error
    if not held:
        raise UserError(f"weights {path}: a checkpoint of fgvc that holds a head and no backbone")
    return held


def made_by(path: Path) -> Mapping[str, Any] | None:
    """The run that wrote a checkpoint, with the weights that it began with; None for other files.

    `weights` holds the same of the run before, if that was a run of fgvc too.

    Raises:
        UserError: the facts of the checkpoint are damaged or of another version.
    """
    facts = tensor_file.read_facts(path)
    if facts is None:
        return None
    _check_metadata(path, facts)
    return {
        "task": facts["config"]["task"]["name"],
        "dataset": facts["config"]["dataset"]["name"],
        "config_hash": facts["config_hash"],
        "manifest_digest": facts["answer"]["manifest_digest"],
        "split_digest": facts["split_digest"],
        "images": facts["fit"]["images"],
        "validation": facts["fit"]["validation"],
        "exported_from": facts.get("exported_from"),
        "weights": dict(facts["backbone"]["weights"]),
    }


def _check_metadata(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """UserError unless these are facts that every checkpoint has."""
    try:
        checkpoint_metadata.check(facts)
    except ValueError as error:
        raise UserError(
            f"weights {path}: a damaged checkpoint, or of another version of fgvc: {error}. "
            "Restore the file, or repeat the run that made it"
        ) from error
    return facts
