"""Features and attention maps -> one array per image, and back.

A cache, or a message from rank to rank, holds one array per image: first the feature, then the
selected patches, then the scores of all patches.
B batch, N images, D feature width, K selected patches, G patches of the grid.
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
    """Features, the indices of the selected patches and the score of every patch, as float32.

    Args:
        selection: None where part attention is off.
        scores: whether to append the scores, if there are any.
    """
    if selection is None:
        return feature_BD
    columns = [feature_BD, selection.index_BK.float()]  # float32 represents every index exactly
    if scores and selection.patch_scores is not None:
        columns.append(selection.patch_scores)
    return torch.cat(columns, 1)


def split_columns(
    columns: Features, conf: Config, scores: bool
) -> tuple[Features, AttentionMaps | None]:
    """The features and the attention maps; None where part attention is off or N is 0.

    Args:
        scores: as for `append_columns`.
    """
    name = conf.part_attention.name
    if name == "off" or not len(columns.row_N):
        return columns, None
    row = chosen_checkpoint(conf.backbone)
    width = feature_dim(row, conf.backbone.features)
    grid = grid_side(conf.resolution.side, row.patch, stride_of(conf))
    score_width = grid**2 if scores and name in parts.SCORED else 0
    score_start = columns.x_ND.shape[1] - score_width
    x_ND, index_NK, score_NG = map(
        np.ascontiguousarray, np.split(columns.x_ND, [width, score_start], 1)
    )
    attention_maps = AttentionMaps(
        columns.row_N, index_NK.astype(np.int64), score_NG if score_width else None, grid
    )
    return Features(x_ND, columns.row_N, columns.bad), attention_maps
