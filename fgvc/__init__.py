"""Fine-grained visual classification: what earns accuracy on look-alike classes?

`python -m fgvc.run` is the command line. These names are for notebooks and other programs; each is
imported when it is first used, because torch takes seconds:

    config = fgvc.load_config("backbone=dinov2", "dataset=cub")
    transform = fgvc.evaluation_transform(config)         # PIL image or path -> uint8 3 x R x R
    backbone = fgvc.build_backbone(config)                # normalized pixels -> tokens
    features = fgvc.extract_features(config, ["bird.jpg"])  # float32, N x D
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgvc.data.preprocess import evaluation_transform
    from fgvc.pipeline.notebook import build_backbone, extract_features, load_config

    __version__: str

__all__ = [
    "__version__",
    "build_backbone",
    "evaluation_transform",
    "extract_features",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("fgvc.config.version").version()
    if name == "evaluation_transform":
        return import_module("fgvc.data.preprocess").evaluation_transform
    if name in __all__:
        return getattr(import_module("fgvc.pipeline.notebook"), name)
    raise AttributeError(f"module 'fgvc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
