"""Where part attention looked, as columns beside the features, and taken apart from them again.

One array an image goes into a cache, or from rank to rank, and holds both.
B batch, N images, D feature width, K kept patches, G patches of the grid.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data.view_transform import grid_side
from fgvc.model import part_attention as parts
from fgvc.model.backbone.base import feature_dim
from fgvc.pipeline.build_model import stride_of
from fgvc.types import AttentionMaps, Features


def append_columns(feature_BD: Tensor, selection: parts.Selection | None, scores: bool) -> Tensor:
    """Features, then the kept patches, then the score of every patch; all float32.

    Args:
        selection: None where every token counts.
        scores: whether the scores are wanted, if there are any.
    """
    if selection is None:
        return feature_BD
    columns = [feature_BD, selection.index_BK.float()]  # float32 holds an index exactly
    if scores and selection.patch_scores is not None:
        columns.append(selection.patch_scores)
    return torch.cat(columns, 1)


def split_columns(
    found: Features, conf: Config, scores: bool
) -> tuple[Features, AttentionMaps | None]:
    """The features alone, and where part attention looked: None without it, and without an image.

    Args:
        scores: as `beside` was told.
    """
    chosen = conf.part_attention.name
    if chosen == "off" or not len(found.row_N):
        return found, None
    row = chosen_checkpoint(conf.backbone)
    width, columns = feature_dim(row, conf.backbone.features), found.x_ND.shape[1]
    grid = grid_side(conf.resolution.side, row.patch, stride_of(conf))
    scored = grid**2 if scores and chosen in parts.SCORED else 0
    x_ND, index_NK, score_NG = (
        np.ascontiguousarray(part) for part in np.split(found.x_ND, [width, columns - scored], 1)
    )
    looks = AttentionMaps(
        found.row_N, index_NK.astype(np.int64), score_NG if scored else None, grid
    )
    return Features(x_ND, found.row_N, found.bad), looks
