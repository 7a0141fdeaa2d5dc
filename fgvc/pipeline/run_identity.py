"""The identity of a run besides its config: code, images, split, labels and weights.

A state is resumed, or a complete run skipped, only if these are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from fgvc.record.env_stamp import GitState
from fgvc.types import Dataset, UserError, WeightsSource

DATA = (
    "manifest_digest",
    "split_digest",
    "labelmap_digest",
    "weights_digest",
    "weights_revision",
)
SHOWN = 16  # hex digits of a digest in a message


def identity_of(
    task: str, code: GitState, dataset: Dataset, source: WeightsSource
) -> dict[str, object]:
    """The identity of a run as plain data; None where a part does not exist.

    Args:
        source: of the pretrained weights; the seed of random weights is in the config.
    """
    return {
        "task": task,
        "git_commit": code.commit,
        "code_patch_sha256": code.patch_sha256,
        "manifest_digest": dataset.manifest.digest,
        "split_digest": dataset.split_digest,
        "labelmap_digest": dataset.labelmap.digest,
        "weights_digest": source.sha256,
        "weights_revision": source.revision,
    }


def differing(
    recorded: Mapping[str, object], current: Mapping[str, object], names: tuple[str, ...] = DATA
) -> list[str]:
    """The names whose values differ.

    Hub revisions are compared only if both exist: a file has none and is identified by its digest.
    """
    unequal = [name for name in names if recorded.get(name) != current.get(name)]
    revisions = recorded.get("weights_revision"), current.get("weights_revision")
    return [name for name in unequal if name != "weights_revision" or None not in revisions]


def check_data(
    recorded: Mapping[str, object],
    current: Mapping[str, object],
    path: object,
    also: str = "",
) -> None:
    """Refuse to continue on other images, another split, label map or other weights.

    Args:
        path: of the earlier state or run, with which the message begins.
        also: other differences, for the message.

    Raises:
        UserError: names each part that differs with both values.
    """
    if not (names := differing(recorded, current)):
        return
    values = "; ".join(
        f"{name}: {str(recorded.get(name))[:SHOWN]} there, {str(current.get(name))[:SHOWN]} here"
        for name in names
    )
    raise UserError(
        f"{path}: trained on other data or weights than there are now ({values}{also}). Restore "
        "them, or train under a new runtime.run_id without runtime.resume; "
        "runtime.resume_force=true accepts only differences of the config"
    )
