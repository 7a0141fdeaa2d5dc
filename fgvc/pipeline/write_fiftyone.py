"""The results of a task -> fiftyone/ in its run folder, the dataset for the FiftyOne App.

Attention is stored as a map over the whole image, about as fine as the token grid; 0 marks the area
outside the network's view. N images, G tokens, H x W cells of a map.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data.decode import image_size
from fgvc.data.find_root import named_root
from fgvc.data.preprocess import evaluation_transform
from fgvc.data.view_transform import View, view
from fgvc.pipeline.build_model import stride_of
from fgvc.pipeline.experiment import Experiment, Results
from fgvc.record.fiftyone import dataset
from fgvc.record.fiftyone.samples import RunResults
from fgvc.types import AttentionMaps, Manifest


def write(
    experiment: Experiment,
    results: Results,
    numbers: Mapping[str, Mapping[str, object]],
    checkpoint_id: str,
) -> None:
    """Write the FiftyOneDataset of a run.

    Args:
        numbers: of each split, because FiftyOne averages in another way.

    Raises:
        OSError: a file cannot be written.
    """
    manifest = experiment.dataset.manifest
    root = named_root(experiment.conf.dataset.root, experiment.conf.dataset.table)
    below = os.path.relpath(manifest.root, root)
    run_results = RunResults(
        manifest,
        Path(below).as_posix(),
        experiment.dataset.labelmap.names,
        checkpoint_id,
        results.predictions,
        results.features,
        _heat_maps(experiment.conf, manifest, results.attention_maps),
    )
    conf = experiment.conf
    parts = (conf.backbone.name, conf.backbone.size, conf.head.name, experiment.dataset.name)
    about = {
        "name": " ".join(str(part) for part in parts),
        "task": experiment.task,
        "dataset": experiment.dataset.name,
        "partial": experiment.dataset.partial,
        "run_id": experiment.run.run_id,
        "config_hash": experiment.config_hash,
        "started": experiment.run.started.isoformat(),
        "manifest_digest": manifest.digest,
        "metrics": {split: dict(values) for split, values in numbers.items()},
    }
    dataset.write(experiment.run.path / dataset.FOLDER, run_results, about)


def _heat_maps(
    conf: Config, manifest: Manifest, attention_maps: AttentionMaps | None
) -> Callable[[int], np.ndarray | None] | None:
    """A function from manifest row to heat map; None where part attention has no scores."""
    if attention_maps is None or attention_maps.score_NG is None:
        return None
    score_NG, stride = attention_maps.score_NG, stride_of(conf)
    patch = chosen_checkpoint(conf.backbone).patch
    index_of_row = {row: index for index, row in enumerate(attention_maps.row_N.tolist())}
    preprocess, cut_N4 = evaluation_transform(conf), manifest.cut_N4

    def heat(row: int) -> np.ndarray | None:
        if (index := index_of_row.get(row)) is None:
            return None
        size_12 = np.array([image_size(manifest.root / manifest.path[row], manifest.max_pixels)])
        cut_14 = None if cut_N4 is None else cut_N4[row : row + 1]
        image_view = view(preprocess, size_12, cut_14)
        return heat_map(image_view, size_12[0], score_NG[index], patch, stride or patch)

    return heat


def heat_map(
    image_view: View, size_2: np.ndarray, score_G: np.ndarray, patch: int, stride: int
) -> np.ndarray:
    """The scores of one image as a map over the whole image.

    Args:
        image_view: the network's view of this image.
        size_2: its width and height, upright. score_G: row by row over the token grid.
        patch, stride: network pixels per patch side, and from one patch to the next.

    Returns:
        map_HW: uint8; 0 outside the network's view; inside it, 1 for the lowest score to 255 for
        the highest. Each cell has the score of the patch with the nearest centre.
    """
    side = round(len(score_G) ** 0.5)
    cell_2 = image_view.step_N2[0] * stride
    columns, rows = np.maximum(1, np.rint(size_2 / cell_2)).astype(int).tolist()
    x_HW, y_HW = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    xy_K2 = np.stack([x_HW, y_HW], axis=-1).reshape(-1, 2) * size_2
    network_K2 = image_view.to_network(xy_K2[None])[0]
    inside_K = ((network_K2 >= 0) & (network_K2 < image_view.side)).all(axis=1)
    token_K2 = np.rint((network_K2 - patch / 2) / stride).clip(0, side - 1).astype(int)
    low, high = float(score_G.min()), float(score_G.max())
    level_G = np.rint(1 + 254 * (score_G - low) / max(high - low, 1e-30)).astype(np.uint8)
    map_K = np.where(inside_K, level_G[token_K2[:, 1] * side + token_K2[:, 0]], 0)
    return map_K.reshape(rows, columns).astype(np.uint8)
