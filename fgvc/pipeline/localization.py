"""Attention maps -> whether they are on the object's parts: numbers, and an overlay of an image.

The selected patches of the test images are compared with boxes and part locations, in pixels of the
original images. Two controls select the same number of patches without attention: random patches
and central patches.
N images, K selected patches, P parts, G patches of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data.decode import image_size
from fgvc.data.preprocess import evaluation_transform
from fgvc.data.view_transform import grid_side, view
from fgvc.html.formats import percent
from fgvc.metrics.part_localization import localization
from fgvc.model import part_attention
from fgvc.pipeline.build_model import stride_of
from fgvc.record import console, image_overlay
from fgvc.types import AttentionMaps, Dataset


def localization_metrics(
    conf: Config, dataset: Dataset, attention_maps: AttentionMaps | None
) -> dict[str, Any]:
    """The entry "parts" of metrics.json: numbers of the selection and of both controls.

    Empty where part attention is off, or the dataset has neither boxes nor parts.
    """
    manifest = dataset.manifest
    if attention_maps is None or (manifest.box_N4 is None and manifest.parts is None):
        return {}
    row_N, index_NK, side = attention_maps.row_N, attention_maps.index_NK, attention_maps.grid
    (images, tokens), seed = index_NK.shape, conf.seed
    box_N4 = None if manifest.box_N4 is None else manifest.box_N4[row_N]
    part_NP2 = None if manifest.parts is None else manifest.parts.xy_NK2[row_N]
    paths = [manifest.root / manifest.path[row] for row in row_N.tolist()]
    size_N2 = np.array([image_size(path, manifest.max_pixels) for path in paths])
    cut_N4 = None if manifest.cut_N4 is None else manifest.cut_N4[row_N]
    views = view(evaluation_transform(conf), size_N2, cut_N4)
    central_K = part_attention.central_patches((side, side))[:tokens].numpy()
    # the patches that part_attention=random and part_attention=centre select in these images
    controls = {
        "random": part_attention.random_patches(seed, manifest.key_N[row_N], (side, side), tokens),
        "centre": np.tile(central_K, (images, 1)),
    }
    controls.pop(conf.part_attention.name, None)  # the selection is itself a control
    patch = chosen_checkpoint(conf.backbone).patch
    numbers: dict[str, Any] = {}
    for name, selected_NK in {conf.part_attention.name: index_NK, **controls}.items():
        patch_NK4 = views.patches(selected_NK, patch, stride_of(conf))
        means = localization(patch_NK4, selected_NK, box_N4, part_NP2)
        numbers[name] = {key: mean._asdict() for key, mean in means.items()}
    return {"parts": {**numbers, "tokens": tokens}}


def print_localization(record: Mapping[str, Any]) -> None:
    """Print the localization of the patches and of the controls, one line per metric."""
    if (parts := record.get("parts")) is None:
        return
    names = [name for name in parts if name != "tokens"]
    for key, what, text in (
        ("in_box", f"% of {parts['tokens']} patches inside the box", percent),
        ("part_distance", "to the nearest part, in diagonals of the box", "{:.3f}".format),
    ):
        values = {name: parts[name][key]["value"] for name in names}
        if None not in values.values():
            shown = ", ".join(f"{name} {text(value)}" for name, value in values.items())
            console.say_summary(f"{what}: {shown}")


def draw_overlay(
    image_CHW: torch.Tensor,
    conf: Config,
    title: str,
    index_K: np.ndarray,
    score_G: np.ndarray | None,
    box_4: np.ndarray | None = None,
) -> image_overlay.Overlay:
    """A decoded image with the selected patches and a heat map of all scores.

    Args:
        conf: determines the network's view of the image.
        box_4: the box to which the image is cropped first (dataset.box_crop).
    """
    height, width = image_CHW.shape[1:]
    image_view = view(
        evaluation_transform(conf),
        np.array([[width, height]]),
        None if box_4 is None else box_4[None],
    )
    patch, overlap_stride = chosen_checkpoint(conf.backbone).patch, stride_of(conf)
    rows, stride = grid_side(image_view.side, patch, overlap_stride), overlap_stride or patch
    # the box of rows x rows cells, each one stride wide, with a patch at the centre of each
    start = (patch - stride) / 2
    corners_122 = np.array([[[start, start], [start + stride * rows] * 2]])
    left, top, right, bottom = image_view.to_original(corners_122)[0].ravel().tolist()
    return image_overlay.Overlay(
        image_HWC=image_CHW.permute(1, 2, 0).numpy(),
        title=title,
        patch_K4=image_view.patches(index_K[None], patch, overlap_stride)[0],
        seen=tuple(image_view.seen[0].tolist()),
        heat_RR=None if score_G is None else score_G.reshape(rows, rows),
        tiled=(left, top, right - left, bottom - top),
    )
