"""Real photographs of 20 species: a partial copy, every image decoded and compared with Pillow."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc.config import schema
from fgvc.data import dataset, loader
from fgvc.data.decode import decode
from fgvc.data.preprocess import Preprocess

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def root() -> Path:
    if "FGVC_REAL_DATA" not in os.environ:
        pytest.skip("FGVC_REAL_DATA is not set")
    return Path(os.environ["FGVC_REAL_DATA"]) / "data" / "cub20"


@pytest.fixture
def birds(root, conf, tmp_path):
    official = schema.OfficialCounts(200, 5994, 5794)
    chosen = conf("cub", root, partial=True, official=official, val_fraction=0.1)
    return dataset.load(chosen, tmp_path)


def test_partial_copy(birds):
    assert birds.partial
    assert birds.notes == ("partial copy: 20 of 200 classes, 600 of 5994 train, 515 of 5794 test",)
    assert birds.labelmap.names[0] == "001.Black_footed_Albatross"
    split = birds.split
    assert (len(split.train_N), len(split.val_N), len(split.test_N)) == (540, 60, 515)
    assert np.bincount(birds.manifest.label_N[split.val_N]).tolist() == [3] * 20
    assert birds.manifest.parts.xy_NK2.shape == (1115, 15, 2)
    assert np.isfinite(birds.manifest.box_N4).all()


@pytest.mark.slow
def test_every_photograph_decodes_in_order(birds):
    rows = np.arange(len(birds.manifest))
    preprocess = Preprocess("shared", 224, "half", "vit")
    read_rows = []
    for batch in loader.batches(birds.manifest, rows, preprocess, 64, 2):
        assert batch.bad == ()
        assert batch.pixels_BCHW.shape[1:] == (3, 224, 224)
        read_rows += batch.row_B.tolist()
    assert read_rows == rows.tolist()


def test_pixels_are_pillows(birds):
    preprocess = Preprocess("shared", 224, "half", "vit")
    beyond, total = 0, 0
    for path in birds.manifest.path[::60]:
        data = (birds.manifest.root / path).read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert torch.equal(decode(data, path), torch.from_numpy(np.array(image)).permute(2, 0, 1))
        short = min(image.size)
        size = 256 * image.width // short, 256 * image.height // short
        left, top = (round((length - 224) / 2) for length in size)
        cropped = image.resize(size, Image.Resampling.BICUBIC).crop(
            (left, top, left + 224, top + 224)
        )
        expected = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).int()
        difference = (preprocess(decode(data, path)).int() - expected).abs()
        assert difference.max() <= 2
        beyond += int((difference > 1).sum())
        total += difference.numel()
    assert beyond <= total * 1e-5
