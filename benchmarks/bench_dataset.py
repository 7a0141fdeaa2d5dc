"""Images for the benchmarks: photographs in FGVC_REAL_DATA, or synthetic birds otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from fgvc.config.compose import composed, typed
from fgvc.config.schema import Config
from fgvc.data import dataset
from fgvc.types import Dataset

REAL = Path(os.environ.get("FGVC_REAL_DATA", "/nonexistent"))
CUB = REAL / "data" / "cub20" / "CUB_200_2011"
WEIGHTS = REAL / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth"


def overrides(folder: Path) -> list[str]:
    """The best available images, and folders below `folder` for everything that is written."""
    dataset_overrides = (
        ["dataset=cub", f"dataset.root={CUB}", "dataset.partial=true"]
        if CUB.is_dir()
        else ["dataset=synthetic", "dataset.generator.side=500"]
    )
    return dataset_overrides + [
        f"runtime.{name}_root={folder / name}" for name in ("data", "cache", "output")
    ]


def config(folder: Path, *more: str) -> Config:
    """A config with the best available images, which writes into `folder` only."""
    return typed(composed([*overrides(folder), *more]))


def load(conf: Config) -> Dataset:
    """The dataset of a config."""
    return dataset.load(conf.dataset, Path(conf.runtime.cache_root))


def describe() -> str:
    """The images of the benchmark, for the table."""
    return "real CUB photographs" if CUB.is_dir() else "synthetic birds of 500 px"
