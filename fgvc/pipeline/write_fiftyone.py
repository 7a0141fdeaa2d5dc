"""What a task found -> fiftyone/ in its run folder: the record that a person looks at.

Attention is told on a map over the whole picture, about as fine as the token grid, in which 0 is
where the network did not look. N images, G tokens, H x W cells of a map.
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
        numbers: of each split, for FiftyOne's own averages are other ones.

    Raises:
        OSError: the disk refuses.
    """
    manifest = experiment.dataset.manifest
    below = os.path.relpath(
        manifest.root, named_root(experiment.conf.dataset.root, experiment.conf.dataset.table)
    )
    said = RunResults(
        manifest,
        Path(below).as_posix(),
        experiment.dataset.labelmap.names,
        checkpoint_id,
        results.predictions,
        results.features,
        _heat(experiment.conf, manifest, results.attention_maps),
    )
    chosen = experiment.conf
    parts = (chosen.backbone.name, chosen.backbone.size, chosen.head.name, experiment.dataset.name)
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
    dataset.write(experiment.run.path / dataset.FOLDER, said, about)


def _heat(
    conf: Config, manifest: Manifest, looks: AttentionMaps | None
) -> Callable[[int], np.ndarray | None] | None:
    """Manifest row -> its attention over the picture; None where part attention scores nothing."""
    if looks is None or looks.score_NG is None:
        return None
    score_NG, stride = looks.score_NG, stride_of(conf)
    patch = chosen_checkpoint(conf.backbone).patch
    place_of = {row: place for place, row in enumerate(looks.row_N.tolist())}
    preprocess, cut_N4 = evaluation_transform(conf), manifest.cut_N4

    def heat(row: int) -> np.ndarray | None:
        if (place := place_of.get(row)) is None:
            return None
        size_12 = np.array([image_size(manifest.root / manifest.path[row], manifest.max_pixels)])
        cut_14 = None if cut_N4 is None else cut_N4[row : row + 1]
        seen = view(preprocess, size_12, cut_14)
        return heat_map(seen, size_12[0], score_NG[place], patch, stride or patch)

    return heat


def heat_map(
    seen: View, size_2: np.ndarray, score_G: np.ndarray, patch: int, stride: int
) -> np.ndarray:
    """One picture's scores over all of it.

    Args:
        seen: how the network looked at it, of one picture.
        size_2: its width and height, upright. score_G: row by row over the token grid.
        patch, stride: network pixels of a patch's side, and from one to the next.

    Returns:
        map_HW: uint8; 0 outside what the network saw, 1 to 255 from the lowest score to the
        highest inside; each cell has the score of the patch whose centre is nearest.
    """
    side = round(len(score_G) ** 0.5)
    cell_2 = seen.step_N2[0] * stride
    columns, rows = np.maximum(1, np.rint(size_2 / cell_2)).astype(int).tolist()
    x_HW, y_HW = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    xy_K2 = np.stack([x_HW, y_HW], axis=-1).reshape(-1, 2) * size_2
    network_K2 = seen.to_network(xy_K2[None])[0]
    inside_K = ((network_K2 >= 0) & (network_K2 < seen.side)).all(axis=1)
    token_K2 = np.rint((network_K2 - patch / 2) / stride).clip(0, side - 1).astype(int)
    low, high = float(score_G.min()), float(score_G.max())
    level_G = np.rint(1 + 254 * (score_G - low) / max(high - low, 1e-30)).astype(np.uint8)
    map_K = np.where(inside_K, level_G[token_K2[:, 1] * side + token_K2[:, 0]], 0)
    return map_K.reshape(rows, columns).astype(np.uint8)
