"""The heads as torch modules: pooled features -> logits in float32, of any float features.

Each belongs to a head= in fgvc/model/head, and `create` makes it with initial values from the
options of the head. B batch, D width, C classes, N rows of a bank, K neighbours, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from fgvc.types import UserError

Sizes = Mapping[str, int]  # axis -> size: C, D, and N for a head with a bank
FLOOR = math.log(1e-12)  # log-vote of a class that no neighbour belongs to
_MAX_SIMILARITIES = 1 << 22  # in memory at the same time: 16 MiB
_WHOLE_BANK = 1 << 14  # rows of a bank up to which a product takes all of them
_BANK_ROWS = 1 << 12  # per product with a larger bank
_SEGMENT = 64  # columns of similarities that only their maximum represents at first


def l2_normalize(feature_BD: Tensor) -> Tensor:
    """Rows of unit length in float32; a row of zeros is unchanged."""
    return nn.functional.normalize(feature_BD.to(torch.float32), dim=1, eps=1e-12)


def _initial_weight(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    """Normal, with the variance that preserves the variance of the input."""
    return nn.Parameter(torch.randn(rows, columns, generator=generator) / math.sqrt(columns))


class LinearHead(nn.Module):
    """logits = features W^T + b, in float32.

    Args:
        weight_CD, bias_C: any float type; kept as float32 parameters `weight_CD` and `bias_C`.
    """

    def __init__(self, weight_CD: Tensor, bias_C: Tensor) -> None:
        super().__init__()
        assert weight_CD.ndim == 2
        assert bias_C.shape == weight_CD.shape[:1]
        self.weight_CD = nn.Parameter(weight_CD.detach().to(torch.float32).clone())
        self.bias_C = nn.Parameter(bias_C.detach().to(torch.float32).clone())

    @classmethod
    def create(cls, options: Any, sizes: Sizes, generator: torch.Generator) -> Self:
        """A head of zeros, so that no random gradient reaches the backbone."""
        return cls(torch.zeros(sizes["C"], sizes["D"]), torch.zeros(sizes["C"]))

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC."""
        return nn.functional.linear(
            feature_BD.to(self.weight_CD.dtype), self.weight_CD, self.bias_C
        )


class TextLinearHead(LinearHead):
    """logits = features / |features| W^T + b, in float32; arguments as LinearHead."""

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC."""
        return super().forward(l2_normalize(feature_BD))


class TextHead(nn.Module):
    """logits = scale cos(feature, t_c), in float32.

    weight_CD: a text feature per class, normalised here, stored as float32 buffer. scale: the
    inverse temperature of the text tower, stored as float32 buffer. A bias common to all classes,
    as in SigLIP, cancels in the softmax and is left out.
    """

    weight_CD: Tensor
    scale: Tensor

    def __init__(self, weight_CD: Tensor, scale: float) -> None:
        super().__init__()
        assert weight_CD.ndim == 2
        assert scale > 0
        self.register_buffer("weight_CD", l2_normalize(weight_CD.detach()).clone())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @classmethod
    def create(cls, options: Any, sizes: Sizes, generator: torch.Generator) -> Self:
        """A head of zeros, with scale 1."""
        return cls(torch.zeros(sizes["C"], sizes["D"]), 1.0)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC, within -scale..scale."""
        return self.scale * (l2_normalize(feature_BD) @ self.weight_CD.T)


class CosineHead(nn.Module):
    """logits = s cos(feature, w_c), in float32, independent of the lengths of feature and weights.

    The logarithm of the scale is learnt, so that the scale stays positive.
    """

    def __init__(
        self, features: int, classes: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        assert features > 0
        assert classes > 0
        assert scale > 0
        self.weight_CD = _initial_weight(classes, features, generator)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale), dtype=torch.float32))

    @classmethod
    def create(cls, options: Any, sizes: Sizes, generator: torch.Generator) -> Self:
        """A head with random class weights."""
        return cls(sizes["D"], sizes["C"], options.scale, generator)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC, within -s..s."""
        return self.log_scale.exp() * (l2_normalize(feature_BD) @ l2_normalize(self.weight_CD).T)


class MlpHead(nn.Module):
    """logits = dropout(gelu(standardised feature W^T + b)) V^T + c, in float32.

    Each feature is first standardised over its D numbers. Thus one learning rate suits backbones
    whose features differ a hundredfold in scale, and only the weights have to be stored. Dropout
    (of hidden units, in training) draws from torch's global generator in a fit on cached features;
    task=train replaces it by draws per image.
    """

    def __init__(
        self, features: int, hidden: int, classes: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        assert min(features, hidden, classes) > 0
        assert 0 <= dropout < 1
        self.hidden_HD = _initial_weight(hidden, features, generator)
        self.hidden_H = nn.Parameter(torch.zeros(hidden))
        self.weight_CH = _initial_weight(classes, hidden, generator)
        self.bias_C = nn.Parameter(torch.zeros(classes))
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def create(cls, options: Any, sizes: Sizes, generator: torch.Generator) -> Self:
        """A head with random matrices."""
        return cls(sizes["D"], options.hidden, sizes["C"], options.dropout, generator)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Any float feature_BD -> float32 logits_BC."""
        feature_BD = nn.functional.layer_norm(
            feature_BD.to(self.hidden_HD.dtype), feature_BD.shape[1:]
        )
        hidden_BH = nn.functional.linear(feature_BD, self.hidden_HD, self.hidden_H)
        hidden_BH = self.dropout(nn.functional.gelu(hidden_BH))
        return nn.functional.linear(hidden_BH, self.weight_CH, self.bias_C)


class KnnHead(nn.Module):
    """Features -> log of each class's share of the votes exp(cosine / temperature).

    bank_ND: normalised here, stored as float32 buffer. label_N: int64 buffer. Among neighbours of
    equal similarity, the lower row is nearer. Beside the bank, memory does not grow with its rows.

    Args:
        overwrite: a float32 bank_ND is normalised in place and kept, because a bank of 579,184
            rows fills 1.8 GB.

    Raises:
        UserError: k exceeds the number of rows.
    """

    bank_ND: Tensor
    label_N: Tensor

    def __init__(
        self,
        bank_ND: Tensor,
        label_N: Tensor,
        classes: int,
        k: int,
        temperature: float,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        assert bank_ND.ndim == 2
        assert label_N.shape == bank_ND.shape[:1]
        assert temperature > 0
        if k > len(bank_ND):
            raise UserError(
                f"head.k={k} exceeds the {len(bank_ND)} images of the bank: set head.k to at most "
                f"{len(bank_ND)}, or use more training images"
            )
        if overwrite and bank_ND.dtype == torch.float32:
            nn.functional.normalize(bank_ND, dim=1, eps=1e-12, out=bank_ND)
        else:
            bank_ND = l2_normalize(bank_ND)
        self.register_buffer("bank_ND", bank_ND)
        self.register_buffer("label_N", label_N.to(torch.int64).clone())
        self.classes, self.k, self.temperature = classes, k, temperature

    @classmethod
    def create(cls, options: Any, sizes: Sizes, generator: torch.Generator) -> Self:
        """A head with an empty bank of N rows."""
        bank_ND, label_N = torch.zeros(sizes["N"], sizes["D"]), torch.zeros(sizes["N"])
        return cls(bank_ND, label_N, sizes["C"], options.k, options.temperature)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """float32 feature_BD -> float32 log-probabilities_BC, FLOOR where a class has no vote."""
        if torch.compiler.is_exporting():  # an exported graph has no batch size to split
            # of equal values, ONNX's TopK takes the lower row
            return self._votes(*(l2_normalize(feature_BD) @ self.bank_ND.T).topk(self.k, dim=1))
        bank_rows = len(self.bank_ND)
        if bank_rows > _WHOLE_BANK:
            bank_rows = max(_BANK_ROWS, self.k)
        queries = max(1, _MAX_SIMILARITIES // bank_rows)
        chunks = (l2_normalize(chunk_BD) for chunk_BD in feature_BD.split(queries))
        return torch.cat([self._votes(*self._nearest(unit_BD, bank_rows)) for unit_BD in chunks])

    def _votes(self, top_BK: Tensor, index_BK: Tensor) -> Tensor:
        # softmax subtracts the maximum first, so the temperature may be tiny
        weight_BK = torch.softmax(top_BK / self.temperature, dim=1)
        # len() would fix the batch size of an exported graph
        vote_BC = weight_BK.new_zeros(weight_BK.shape[0], self.classes)
        vote_BC.scatter_add_(1, self.label_N[index_BK], weight_BK)
        return vote_BC.log().clamp(min=FLOOR)

    def _nearest(self, unit_BD: Tensor, bank_rows: int) -> tuple[Tensor, Tensor]:
        """The k largest similarities in descending order and their rows; `bank_rows` at a time."""
        top_BK = unit_BD.new_full((len(unit_BD), self.k), -math.inf)
        index_BK = torch.zeros_like(top_BK, dtype=torch.int64)
        for first in range(0, len(self.bank_ND), bank_rows):
            similarity_BM = unit_BD @ self.bank_ND[first : first + bank_rows].T
            top_BK, index_BK = _merge(top_BK, index_BK, similarity_BM, first)
        return top_BK, index_BK


def _merge(
    top_BK: Tensor, index_BK: Tensor, similarity_BM: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """The K largest of those so far and of the next M similarities, whose row numbers follow.

    Only the maxima of segments are compared with the K-th largest so far. The K-th largest maximum
    is a lower bound of the K-th largest similarity, so it serves the first rows (first = 0).
    """
    k, rows = top_BK.shape[1], similarity_BM.shape[1]
    width = min(_SEGMENT, max(1, rows // (4 * k)))
    similarity_BM = nn.functional.pad(similarity_BM, (0, -rows % width), value=-math.inf)
    segment_BSW = similarity_BM.unflatten(1, (-1, width))
    largest_BS = segment_BSW.amax(2)
    bound_B1 = top_BK[:, -1:]
    if first == 0:
        bound_B1 = largest_BS.topk(k, dim=1).values[:, -1:]
        bound_B1 = bound_B1.nextafter(torch.full_like(bound_B1, -math.inf))
    # larger than the bound: an equal similarity loses, because its row is higher
    row_P, segment_P = (largest_BS > bound_B1).nonzero(as_tuple=True)
    value_PW = segment_BSW[row_P, segment_P]
    pair_Q, column_Q = (value_PW > bound_B1[row_P]).nonzero(as_tuple=True)
    row_Q = row_P[pair_Q]
    count_B = row_Q.bincount(minlength=len(top_BK))
    if not len(row_Q):
        return top_BK, index_BK
    # candidates of a row side by side, their row numbers ascending
    place_Q = torch.arange(len(row_Q), device=row_Q.device) - (count_B.cumsum(0) - count_B)[row_Q]
    shape = len(top_BK), int(count_B.max())
    new_top = top_BK.new_full(shape, -math.inf)
    new_top[row_Q, place_Q] = value_PW[pair_Q, column_Q]
    new_index = index_BK.new_zeros(shape)
    new_index[row_Q, place_Q] = first + segment_P[pair_Q] * width + column_Q
    top = torch.cat([top_BK, new_top], 1)
    order_BK = top.argsort(dim=1, descending=True, stable=True)[:, :k]
    return top.gather(1, order_BK), torch.cat([index_BK, new_index], 1).gather(1, order_BK)
