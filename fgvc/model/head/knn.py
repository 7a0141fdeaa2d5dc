"""head=knn: the votes of the nearest training images, weighted by similarity.

Source: DINO's k-nearest-neighbour protocol (Caron et al., ICCV 2021, appendix F.1).
B batch, D width, N rows of the bank, C classes, K neighbours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fgvc.model.head.l2_normalize import l2_normalize
from fgvc.types import UserError

FLOOR = math.log(1e-12)  # log-vote of a class that no neighbour belongs to
_MAX_SIMILARITIES = 1 << 22  # similarities held at once: 16 MiB


class KnnHead(nn.Module):
    """Features -> log of each class's share of the votes exp(cosine / temperature).

    bank_ND: normalised here, kept as float32 buffer. label_N: int64 buffer. Of neighbours whose
    similarities are equal the one of lower row is nearer.

    Raises:
        UserError: k exceeds the number of rows.
    """

    bank_ND: Tensor
    label_N: Tensor

    def __init__(
        self, bank_ND: Tensor, label_N: Tensor, classes: int, k: int, temperature: float
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
        self.register_buffer("bank_ND", l2_normalize(bank_ND))
        self.register_buffer("label_N", label_N.to(torch.int64).clone())
        self.classes, self.k, self.temperature = classes, k, temperature

    def forward(self, feature_BD: Tensor) -> Tensor:
        """float32 feature_BD -> float32 log-probabilities_BC, FLOOR where a class has no vote."""
        if torch.compiler.is_exporting():  # a graph has no size of a batch to cut it by
            return self._votes(feature_BD)
        rows = max(1, _MAX_SIMILARITIES // len(self.bank_ND))
        return torch.cat([self._votes(chunk_BD) for chunk_BD in feature_BD.split(rows)])

    def _votes(self, feature_BD: Tensor) -> Tensor:
        similarity_BN = l2_normalize(feature_BD) @ self.bank_ND.T
        top_BK, index_BK = self._nearest(similarity_BN)
        # softmax is exp(s / T) over its sum; it takes the maximum off first, so T may be tiny.
        weight_BK = torch.softmax(top_BK / self.temperature, dim=1)
        vote_BC = weight_BK.new_zeros(feature_BD.shape[0], self.classes)
        vote_BC.scatter_add_(1, self.label_N[index_BK], weight_BK)
        return vote_BC.log().clamp(min=FLOOR)

    def _nearest(self, similarity_BN: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest of each row; the stable sort is slow and only for ties at the border."""
        top_BK, index_BK = similarity_BN.topk(self.k, dim=1)
        if torch.compiler.is_exporting():  # ONNX's TopK takes the lower row of a tie by itself
            return top_BK, index_BK
        tied_B = (similarity_BN >= top_BK[:, -1:]).sum(dim=1) > self.k
        if tied_B.any():
            order_TN = similarity_BN[tied_B].argsort(dim=1, descending=True, stable=True)
            index_BK[tied_B] = order_TN[:, : self.k]
        return top_BK, index_BK
