"""Attention maps -> whether they lie on the object's parts: numbers, and an overlay of an image.

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
from fgvc.data.view_transform import View, grid_side, view
from fgvc.html.formats import percent
from fgvc.metrics.part_localization import localization
from fgvc.model import part_attention
from fgvc.pipeline.build_model import stride_of
from fgvc.record import console, image_overlay
from fgvc.types import AttentionMaps, Dataset, Manifest


def localization_metrics(
    conf: Config, dataset: Dataset, attention_maps: AttentionMaps | None
) -> dict[str, Any]:
    """The entry "parts" of metrics.json: numbers of the selection and of both controls.

    Empty where part attention is off, or the dataset has neither boxes nor parts.
    """
    manifest = dataset.manifest
    if attention_maps is None or (manifest.box_N4 is None and manifest.parts is None):
        return {}
    row_N, index_NK = attention_maps.row_N, attention_maps.index_NK
    box_N4 = None if manifest.box_N4 is None else manifest.box_N4[row_N]
    part_NP2 = None if manifest.parts is None else manifest.parts.xy_NK2[row_N]
    views, patch = _views(conf, manifest, row_N), chosen_checkpoint(conf.backbone).patch
    own = {conf.part_attention.name: index_NK}
    selections = own | _controls(attention_maps, manifest.key_N[row_N], conf.seed) | own
    numbers: dict[str, Any] = {}
    for name, selected_NK in selections.items():  # own: first, also where it is itself a control
        patch_NK4 = views.patches(selected_NK, patch, stride_of(conf))
        means = localization(patch_NK4, selected_NK, box_N4, part_NP2)
        numbers[name] = {key: mean._asdict() for key, mean in means.items()}
    return {"parts": {**numbers, "tokens": index_NK.shape[1]}}


def _controls(attention_maps: AttentionMaps, key_N: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The patches that part_attention=random and part_attention=centre select in these images."""
    (images, tokens), side = attention_maps.index_NK.shape, attention_maps.grid
    centre_K = part_attention.central_patches((side, side))[:tokens].numpy()
    return {
        "random": part_attention.random_patches(seed, key_N, (side, side), tokens),
        "centre": np.tile(centre_K, (images, 1)),
    }


def _views(conf: Config, manifest: Manifest, row_N: np.ndarray) -> View:
    """The network's views of these images, from the headers of their files."""
    size_N2 = np.array(
        [
            image_size(manifest.root / manifest.path[row], manifest.max_pixels)
            for row in row_N.tolist()
        ]
    )
    cut_N4 = manifest.cut_N4
    return view(evaluation_transform(conf), size_N2, None if cut_N4 is None else cut_N4[row_N])


def print_localization(record: Mapping[str, Any]) -> None:
    """Print where the patches lie, beside the controls, one line per metric."""
    if (parts := record.get("parts")) is None:
        return
    names = [name for name in parts if name != "tokens"]
    in_box, distance = (
        {name: parts[name][key]["value"] for name in names} for key in ("in_box", "part_distance")
    )
    if None not in in_box.values():
        values = ", ".join(f"{name} {percent(share)}" for name, share in in_box.items())
        console.say(f"% of {parts['tokens']} patches inside the box: {values}")
    if None not in distance.values():
        values = ", ".join(f"{name} {value:.3f}" for name, value in distance.items())
        console.say(f"to the nearest part, in diagonals of the box: {values}")


def draw_overlay(
    picture_CHW: torch.Tensor,
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
    height, width = picture_CHW.shape[1:]
    image_view = view(
        evaluation_transform(conf),
        np.array([[width, height]]),
        None if box_4 is None else box_4[None],
    )
    patch, stride = chosen_checkpoint(conf.backbone).patch, stride_of(conf)
    rows = grid_side(image_view.side, patch, stride)
    return image_overlay.Overlay(
        picture_HWC=picture_CHW.permute(1, 2, 0).numpy(),
        title=title,
        patch_K4=image_view.patches(index_K[None], patch, stride)[0],
        seen=tuple(image_view.seen[0].tolist()),
        heat_RR=None if score_G is None else score_G.reshape(rows, rows),
        tiled=_heat_box(image_view, rows, patch, stride or patch),
    )


def _heat_box(image_view: View, rows: int, patch: int, stride: int) -> image_overlay.Box:
    """The box of rows x rows cells, each one stride wide, with a patch at the centre of each."""
    start = (patch - stride) / 2
    end = start + stride * rows
    corner_22 = image_view.to_original(np.array([[[start, start], [end, end]]]))[0]
    left, top, right, bottom = corner_22.ravel().tolist()
    return left, top, right - left, bottom - top
