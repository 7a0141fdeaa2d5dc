"""head=text_linear: an affine map of unit features, regularised towards the text features of names.

The fit starts from weights scale * t_c and no bias, which is the classifier of head=text.
"""

from __future__ import annotations

from typing import Any

from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import HeadSpec, Sizes
from fgvc.model.head.linear import TENSORS


def _build(options: Any, sizes: Sizes, generator: Any) -> Any:
    from fgvc.model.head_layers import TextLinearHead

    return TextLinearHead.zeros(sizes)


HEAD = HeadSpec(NoOptions, TENSORS, _build, fit="logistic", reads_text=True)
