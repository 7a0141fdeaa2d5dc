"""The images of a page stay within a budget of bytes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fgvc.record.run_page.gallery import Album


def test_an_album_never_exceeds_its_budget(tmp_path):
    noise_HWC = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    album = Album(lambda path: None if path == "gone" else noise_HWC, budget=60_000)
    images = [album.test_image(str(number)) for number in range(30)]
    added = [image for image in images if image]
    assert 0 < len(added) < 30
    assert sum(len(image.source) for image in added) == 60_000 - album.left <= 60_000
    assert {(image.width, image.height) for image in added} == {(168, 126)}
    assert Album(lambda path: None).test_image("gone") is None
    Image.fromarray(noise_HWC).save(tmp_path / "big.png")
    assert album.overlay(tmp_path / "big.png") is None
