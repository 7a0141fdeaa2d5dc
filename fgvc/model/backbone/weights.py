"""A backbone's config -> where its weights lie; a weights file -> its tensors, and nothing else.

A file is told by its first bytes, not its name, and whatever is wrong with it is said in one line.
Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config import schema
from fgvc.model.backbone import hub, own
from fgvc.store import digest
from fgvc.types import UserError, WeightsSource

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER = "tokenizer.json"
# library: the names under which it saves weights, first choice first, and what may lie beside them
NAMES: Mapping[str, Sequence[str]] = {
    "timm": ("model.safetensors",),
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "transformers": ("model.safetensors",),
}
COMPANIONS: Mapping[str, Sequence[str]] = {
    "timm": (),
    "open_clip": ("open_clip_config.json",),
    "transformers": ("config.json",),
}
_WRAPPERS = ("model", "state_dict")


def find(conf: schema.Backbone) -> WeightsSource:
    """Where the weights are: a given file or folder, none (random), or the hub's cache, filled if
    need be.

    Raises:
        UserError: no such file, no network, a digest other than `backbone.weights_sha256` or than
            the hub's own, or a made-up model asked for with weights.
    """
    row = schema.chosen_checkpoint(conf)
    if conf.weights is not None:
        path = _local_file(conf, row)
        sha256 = _matching(path, conf.weights_sha256)
        return WeightsSource("file", path.name, path, sha256, made_by=own.made_by(path))
    if not conf.pretrained:
        return WeightsSource("random", row.model)
    if not row.repo:
        raise UserError(
            f"backbone.size={row.size}: a made-up {conf.name} has no published weights; "
            "backbone.pretrained=false takes random ones, backbone.weights=PATH those of a file, "
            "and a row of your own may name a repo"
        )
    path, commit = hub.fetch(
        hub.Wanted(
            what="weights",
            model=row.model,
            repo=row.repo,
            revision=conf.revision or row.revision,
            names=NAMES[conf.library],
            companions=COMPANIONS[conf.library],
            instead="give a local file with backbone.weights=PATH",
        )
    )
    sha256 = _matching(path, conf.weights_sha256)
    _refuse_damaged(path, sha256)
    return WeightsSource("hub", row.repo, path, sha256, commit)


def tokenizer(conf: schema.Backbone, source: WeightsSource) -> Path | None:
    """The tokenizer that belongs to the weights; None where the library or random weights bring it.

    Raises:
        UserError: it is neither beside the weights nor on the hub, or is another one than
            `backbone.tokenizer_sha256`.
    """
    if source.path is None or conf.library != "transformers":
        return None
    row = schema.chosen_checkpoint(conf)
    path = source.path.with_name(TOKENIZER)
    if not path.is_file():
        path = _fetched_tokenizer(row, source)
    sha256 = digest.sha256_file(path)
    if conf.tokenizer_sha256 not in (None, sha256):
        raise UserError(
            f"tokenizer {path} has sha256 {sha256}, not backbone.tokenizer_sha256="
            f"{conf.tokenizer_sha256}: the file changed or is another one"
        )
    return path


def _fetched_tokenizer(row: schema.Checkpoint, source: WeightsSource) -> Path:
    assert source.path is not None
    if source.revision is None:
        raise UserError(
            f"no tokenizer for {row.model}: {source.path.parent} holds no {TOKENIZER}; run "
            f"`hf download {row.repo or 'REPO'} {TOKENIZER} --local-dir {source.path.parent}`, or "
            "leave backbone.weights out to take weights and tokenizer from the hub"
        )
    path, _ = hub.fetch(
        hub.Wanted(
            what="tokenizer",
            model=row.model,
            repo=source.name,
            revision=source.revision,
            names=(TOKENIZER,),
            instead="give a folder that holds weights and tokenizer with backbone.weights=PATH",
        )
    )
    return path


def _local_file(conf: schema.Backbone, row: schema.Checkpoint) -> Path:
    path = Path(conf.weights or "").expanduser()
    if path.is_dir():
        names = NAMES[conf.library]
        inside = next((path / name for name in names if (path / name).is_file()), None)
        if inside is None:
            raise UserError(
                f"backbone.weights={conf.weights}: the folder holds no {' or '.join(names)}, as "
                f"{conf.library} saves them; name the file itself"
            )
        return inside
    if not path.is_file():
        raise UserError(
            f"backbone.weights={conf.weights}: no such file; correct the path, "
            f"or leave it out to take {row.repo} from the hub"
        )
    return path


def _matching(path: Path, pinned: str | None) -> str:
    sha256 = digest.sha256_file(path)
    if pinned not in (None, sha256):
        raise UserError(
            f"weights {path} have sha256 {sha256}, not backbone.weights_sha256={pinned}: "
            f"the file changed or is another one"
        )
    return sha256


def _refuse_damaged(path: Path, sha256: str) -> None:
    promised = hub.promised_sha256(path)
    if promised not in (None, sha256):
        raise UserError(
            f"weights {path} have sha256 {sha256}, the hub says {promised}: the cached file is "
            f"damaged; delete {path.resolve()} and run again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """What a library wrote beside its weights.

    Raises:
        UserError: no JSON object; one line.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): fetch it again") from error
    if not isinstance(held, dict):
        raise UserError(f"{path} holds a {type(held).__name__}, not a JSON object: fetch it again")
    return held


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or a torch checkpoint, on the CPU, wrappers taken off.

    Raises:
        UserError: not a weights file, cut short, or holding more than tensors; one line.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(512)
    _refuse_stand_in(path, head)
    if (state := own.read(path)) is not None:
        return state
    if head[8:9] == b"{":  # an 8-byte length, then JSON
        return _unwrapped(_safetensors(path), path)
    return _unwrapped(_pickled(path), path)


def _refuse_stand_in(path: Path, head: bytes) -> None:
    """Name the files that commonly lie where weights should."""
    text = head.lstrip().lower()
    if not head:
        raise UserError(f"weights {path} are empty (0 bytes): download them again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"weights {path} are a web page, not weights: download them again")
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"weights {path} are a Git LFS pointer: run `git lfs pull` where it lies")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(_unreadable(path, error)) from error


def _pickled(path: Path) -> Any:
    """weights_only reads tensors and plain containers; anything that would run code is refused."""
    import pickle

    import torch

    try:
        with path.open("rb") as file:  # of a path, torch would believe the ending
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path} are not tensors alone: refused, and nothing in the file was run; "
            f"save the state dict by itself, best as .safetensors"
        ) from error
    except Exception as error:  # a damaged archive fails in as many ways as there are layers
        if "TorchScript" in str(error):
            raise UserError(
                f"weights {path} are a TorchScript program: refused, as reading one can run code; "
                "save its state dict by itself, best as .safetensors"
            ) from error
        raise UserError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"weights {path} cannot be read ({path.stat().st_size} bytes, cut short?): {reason}"


def _unwrapped(state: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"weights {path} hold a {type(state).__name__}, not named tensors")
    alien = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if alien is not None:
        kind = type(state[alien]).__name__
        raise UserError(f"weights {path} hold a {kind} at {alien!r}, where a tensor should be")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
