"""The public names of `import fgvc`, and that the import is fast."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fgvc
from fgvc.config.errors import ConfigError
from fgvc.config.version import version
from fgvc.data import dataset as datasets
from fgvc.model.backbone import weights
from fgvc.pipeline.features import FeatureExtractor
from fgvc.types import UserError

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "backbone=vit_tiny",
    "backbone.pretrained=false",
    "resolution.side=64",
    "resolution.name=r64",
)
CPU = ("runtime.device=cpu", "runtime.num_workers=0", "runtime.eval_batch_size=4")


def test_the_public_names():
    assert fgvc.__all__ == [
        "__version__",
        "build_backbone",
        "evaluation_transform",
        "extract_features",
        "load_config",
    ]
    assert set(fgvc.__all__) <= set(dir(fgvc))
    assert fgvc.__version__ == version()
    assert (Path(fgvc.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = fgvc.train  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_fgvc_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'hydra', 'omegaconf'}"
    code = f"import fgvc, sys; fgvc.__version__; print(sorted({heavy} & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize("part_attention", ["off", "rollout"])
def test_features_of_files_are_those_of_a_probe(birds, tmp_path, part_attention):
    config = fgvc.load_config(
        *TINY, *CPU, "dataset=cub", "dataset.partial=true", f"dataset.root={birds}",
        f"part_attention={part_attention}",
    )  # fmt: skip
    dataset = datasets.load(config.dataset, tmp_path, None)
    config.runtime.cache_root = str(tmp_path)
    extractor = FeatureExtractor(
        config, dataset, weights.find(config.backbone), torch.device("cpu")
    )
    expected = extractor.extract("test", dataset.split.test_N[:6])
    paths = [dataset.manifest.root / dataset.manifest.path[row] for row in expected.row_N]
    feature_ND = fgvc.extract_features(config, paths)
    assert feature_ND.dtype == np.float32
    np.testing.assert_array_equal(feature_ND, expected.x_ND[:, : feature_ND.shape[1]])
    backbone = fgvc.build_backbone(config)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Image.open(path)) for path in paths]
        again_ND = fgvc.extract_features(config, opened, backbone)
    np.testing.assert_array_equal(again_ND, feature_ND)
    transform = fgvc.evaluation_transform(config)
    tokens = backbone(transform.normalize(transform(paths[0])[None]))
    np.testing.assert_allclose(tokens.pooled_BD.detach().numpy()[0], feature_ND[0], atol=1e-5)
    assert fgvc.extract_features(config, [], backbone).shape == (0, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("backbone=vit_tinny",), "^backbone=vit_tinny: "),
        (("backbone.pach=14",), "backbone.patch"),
        (("sweep=baselines",), "sweep="),
        (("seed=1,2",), "seed=1,2"),
    ],
)
def test_a_wrong_config_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        fgvc.load_config(*overrides)


def test_what_needs_a_dataset_or_an_image_is_refused(tmp_path):
    config = fgvc.load_config(*TINY, *CPU, "part_attention=random")
    with pytest.raises(ConfigError, match="^part_attention=random: "):
        fgvc.extract_features(config, [])
    config = fgvc.load_config(*TINY, *CPU)
    (tmp_path / "bird.jpg").write_text("no image")
    with pytest.raises(UserError, match=str(tmp_path / "bird.jpg")):
        fgvc.extract_features(config, [tmp_path / "bird.jpg"])
