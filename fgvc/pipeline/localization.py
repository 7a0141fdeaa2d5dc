"""Where part attention looked -> whether that is where the parts are, and eight pictures to see it.

The selected patches of the test images are held against boxes and part locations in the pictures'
own pixels, beside two selections of as many patches that took no attention: by lot, and the middle.
N images, K selected patches, P parts, G patches of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from fgvc import metrics, untrusted
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data.decode import decode, image_size
from fgvc.data.preprocess import evaluation_transform
from fgvc.data.view_transform import View, grid_side, view
from fgvc.metrics.part_localization import localization
from fgvc.model import part_attention
from fgvc.pipeline.build_model import stride_of
from fgvc.pipeline.experiment import Experiment, Results
from fgvc.record import console, image_overlay
from fgvc.types import AttentionMaps, Dataset, Manifest, Predictions

SHOWN = 8  # overlays of a run
SIDE = 1024  # pixels of an overlay's longer side at most
STEM = 50  # characters of a picture's name that its overlay keeps: names of files have an end


def localization_metrics(
    conf: Config, dataset: Dataset, looks: AttentionMaps | None
) -> dict[str, Any]:
    """What metrics.json says under "parts": of the selection and of both controls, every number of
    metrics.parts.localization; nothing where there is no selection, or nothing to hold it against.
    """
    manifest = dataset.manifest
    if looks is None or (manifest.box_N4 is None and manifest.parts is None):
        return {}
    row_N = looks.row_N
    box_N4 = None if manifest.box_N4 is None else manifest.box_N4[row_N]
    part_NP2 = None if manifest.parts is None else manifest.parts.xy_NK2[row_N]
    looked, patch = _view(conf, manifest, row_N), chosen_checkpoint(conf.backbone).patch
    own = {conf.part_attention.name: looks.index_NK}
    controls = _controls(looks, manifest.key_N[row_N], conf.seed)
    chosen = own | controls | own  # first, and itself where it is a control
    found: dict[str, Any] = {}
    for name, index_NK in chosen.items():
        patch_NK4 = looked.patches(index_NK, patch, stride_of(conf))
        means = localization(patch_NK4, index_NK, box_N4, part_NP2)
        found[name] = {key: mean._asdict() for key, mean in means.items()}
    return {"parts": {**found, "tokens": looks.index_NK.shape[1]}}


def write(experiment: Experiment, results: Results, record: Mapping[str, Any]) -> None:
    """Overlays into the run folder, and with the numbers onto the board."""
    for name, png in _overlays(experiment, results):
        experiment.run.write_bytes(f"overlays/{name}.png", png)
        experiment.board.image(f"overlays/{name}", png)
    means = record.get("parts", {}).get(experiment.conf.part_attention.name, {})
    for key, mean in means.items():
        if mean["value"] is not None:
            experiment.board.scalar(f"parts/{key}", mean["value"], results.steps)


def print_localization(record: Mapping[str, Any]) -> None:
    """Where the patches lie, beside the controls, in a line each."""
    if (found := record.get("parts")) is None:
        return
    names = [name for name in found if name != "tokens"]
    in_box, distance = (
        {name: found[name][key]["value"] for name in names} for key in ("in_box", "part_distance")
    )
    if None not in in_box.values():
        said = ", ".join(f"{name} {console.percent(share)}" for name, share in in_box.items())
        console.say(f"% of {found['tokens']} patches inside the box: {said}")
    if None not in distance.values():
        said = ", ".join(f"{name} {value:.3f}" for name, value in distance.items())
        console.say(f"to the nearest part, in diagonals of the box: {said}")


def draw_overlay(
    picture_CHW: torch.Tensor,
    conf: Config,
    title: str,
    index_K: np.ndarray,
    score_G: np.ndarray | None,
    box_4: np.ndarray | None = None,
) -> image_overlay.Overlay:
    """A decoded picture with the patches that were selected, and the heat of all scores.

    Args:
        conf: says how the network looked at it.
        box_4: what it was cut to first (dataset.box_crop).
    """
    height, width = picture_CHW.shape[1:]
    looked = view(
        evaluation_transform(conf),
        np.array([[width, height]]),
        None if box_4 is None else box_4[None],
    )
    patch, stride = chosen_checkpoint(conf.backbone).patch, stride_of(conf)
    rows = grid_side(looked.side, patch, stride)
    return image_overlay.Overlay(
        picture_HWC=picture_CHW.permute(1, 2, 0).numpy(),
        title=title,
        patch_K4=looked.patches(index_K[None], patch, stride)[0],
        seen=tuple(looked.seen[0].tolist()),
        heat_RR=None if score_G is None else score_G.reshape(rows, rows),
        tiled=_tiled(looked, rows, patch, stride or patch),
    )


def _tiled(looked: View, rows: int, patch: int, stride: int) -> image_overlay.Box:
    """The box of rows x rows cells, a stride wide each, with a patch in the middle of each."""
    first = (patch - stride) / 2
    corner_22 = looked.to_original(np.array([[[first] * 2, [first + stride * rows] * 2]]))[0]
    left, top, right, bottom = corner_22.ravel().tolist()
    return left, top, right - left, bottom - top


def _controls(looks: AttentionMaps, key_N: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What part_attention=random and part_attention=centre would have kept of these images."""
    (images, tokens), grid = looks.index_NK.shape, (looks.grid, looks.grid)
    centre_K = part_attention.central_patches(grid)[:tokens].numpy()
    return {
        "random": part_attention.random_patches(seed, key_N, grid, tokens),
        "centre": np.tile(centre_K, (images, 1)),
    }


def _view(conf: Config, manifest: Manifest, row_N: np.ndarray) -> View:
    """How the network looked at these pictures, from their headers."""
    size_N2 = np.array(
        [
            image_size(manifest.root / manifest.path[row], manifest.max_pixels)
            for row in row_N.tolist()
        ]
    )
    cut_N4 = manifest.cut_N4
    return view(evaluation_transform(conf), size_N2, None if cut_N4 is None else cut_N4[row_N])


def _overlays(experiment: Experiment, results: Results) -> Iterator[tuple[str, bytes]]:
    """Name and PNG of test pictures evenly over the index, the same whatever was selected: runs
    can be held side by side, and none is flattered."""
    looks, manifest = results.attention_maps, experiment.dataset.manifest
    cut_N4 = manifest.cut_N4
    if looks is None:
        return
    even_M = np.linspace(0, len(looks.row_N) - 1, min(SHOWN, len(looks.row_N)))
    for number, place in enumerate(even_M.round().astype(int).tolist()):
        row = int(looks.row_N[place])
        path = manifest.path[row]
        drawn = draw_overlay(
            decode(
                untrusted.read_bytes(manifest.root / path, untrusted.PICTURE),
                path,
                manifest.max_pixels,
            ),
            experiment.conf,
            _title(experiment, results.predictions["test"], row),
            looks.index_NK[place],
            None if looks.score_NG is None else looks.score_NG[place],
            None if cut_N4 is None else cut_N4[row],
        )
        yield (
            f"{number:02d}-{PurePosixPath(path).stem[:STEM]}",
            image_overlay.png(drawn.within(SIDE)),
        )


def _title(experiment: Experiment, test: Predictions, row: int) -> str:
    """What the picture was taken for, and what it is."""
    names, place = experiment.dataset.labelmap.names, int(np.flatnonzero(test.row_N == row)[0])
    logits_1C = test.logits_NC[place][None]
    best = int(metrics.topk(logits_1C, 1)[0, 0])
    share = float(np.exp(metrics.log_probabilities(logits_1C)[0, best]))
    return image_overlay.title(names[best], share, names[test.label_N[place]])
