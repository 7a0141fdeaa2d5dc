"""report.html of a run: consistent with the folder, self-contained, safe with any name."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc.config.compose import composed, typed
from fgvc.record import run_page
from fgvc.record.run_page import gallery
from fgvc.record.run_page.gallery import Album
from fgvc.run import main
from tests.narrow import not_none

NASTY = ('<b>x</b> & "y"', "</script><i>", "große = {{ 7 * 7 }}")
FEW = ("resolution.side=64", "resolution.name=r64", "task.c_count=3", "runtime.num_workers=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A linear probe of three classes whose class and file names need escaping."""
    home = tmp_path_factory.mktemp("page")
    root = home / "pictures"
    root.mkdir()
    with (root / "birds.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(("path", "label", "split"))
        for number in range(36):
            name = f"<i>&'\"{number}.jpg"
            colour = (number * 7, 80 * (number % 3), 255 - number * 7)
            Image.new("RGB", (90, 60 + number), colour).save(root / name, "JPEG")
            table.writerow((name, NASTY[number % 3], "train" if number < 18 else "test"))
    places = [f"runtime.{name}_root={home / name}" for name in ("output", "cache", "data")]
    data = ("dataset=table", f"dataset.table='{root / 'birds.csv'}'", "dataset.val_fraction=0.2")
    assert main(["backbone=vit_tiny", "backbone.pretrained=false", *data, *FEW, *places]) == 0
    return next((home / "output").glob("*/*/*/ckpt.bin")).parent


def text_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_one_of_the_sealed_files(folder):
    assert "report.html" in json.loads((folder / "artifacts.json").read_text())
    assert (folder / "report.html").stat().st_size < 1_500_000


def test_the_page_shows_the_numbers_and_how_to_repeat_them(folder):
    text = unescape(text_of(folder))
    numbers = json.loads((folder / "metrics.json").read_text())
    stamp = json.loads((folder / "env_stamp.json").read_text())
    for split in ("val", "test"):
        for key in ("top1", "mean_per_class", "macro_f1"):
            low, high = (f"{100 * bound:.1f}" for bound in numbers[split][f"{key}_ci95"])
            cell = f'{100 * numbers[split][key]:.1f} <span class="range">[{low}, {high}]</span>'
            assert cell in text, key
    assert numbers["test"]["intervals_note"] is None
    assert "images per class" in numbers["val"]["intervals_note"]  # 4 images
    assert f"val: {numbers['val']['intervals_note']}." in text
    for digest in ("config_hash", "manifest_digest", "split_digest", "requirements_checksum"):
        assert stamp[digest] in text
    assert f"git checkout {stamp['git_commit'] or '(not recorded)'}" in text
    assert "runtime.run_id=" not in text
    place = "/".join(folder.parts[-3:])
    assert f'task=eval checkpoint="\\"$OUTPUT_ROOT/{place}\\""' in text
    assert str(folder.parents[2]) not in text
    assert numbers["comparability_key"] in text
    assert ">random weights<" in text


def test_curves_and_images_are_inside(folder):
    text = text_of(folder)
    assert text.count("<polyline") == 2  # loss and accuracy over C
    images = re.findall(r'src="data:image/(jpeg|png);base64,([^"]+)"', text)
    assert len(images) > 5
    for kind, data in images:
        assert kind == "jpeg"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 168
    assert not re.search(r'(src|href)="(https?:)?//', text)


def test_the_confusion_matrix_is_drawn_in_the_page(folder, opened):
    """Its counts, without the list of pairs, in the colours of the page."""
    rows = list(csv.reader((folder / "confusion.csv").open(newline="", encoding="utf-8")))[1:]
    counts = [count for row in rows for count in row[1:] if count != "0"]
    for scheme in ("light", "dark"):
        page = opened(folder / "report.html", scheme).page
        plot = page.locator("svg.confusion-matrix")
        assert plot.count() == 1
        assert sorted(plot.locator(".counts text").all_text_contents()) == sorted(counts)
        assert plot.locator(".pairs, .title").count() == 0
        paper = plot.locator(".paper").evaluate("paper => getComputedStyle(paper).fill")
        body = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert paper == body
        charts = page.locator(".charts svg text").first  # its style reaches no other chart
        assert charts.evaluate("text => getComputedStyle(text).whiteSpace") != "pre"


@pytest.mark.fault(53)
def test_in_a_browser_names_are_text_and_nothing_is_requested(folder, opened):
    browser = opened(folder / "report.html")
    assert browser.page.locator("section", has_text="Hardest classes").locator("b i").count() == 0
    text = browser.page.locator("main").inner_text()
    for name in NASTY:
        assert name in text
    assert browser.page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [
        (folder / "report.html").as_uri()
    ]


def test_it_fits_a_laptop_is_dark_at_night_and_prints(folder, opened):
    browser = opened(folder / "report.html", "dark")
    paper, ink = browser.colours()
    assert paper < 40 < 200 < ink
    assert browser.overflow() == 0
    browser.page.add_style_tag(content="html { font-size: 80% !important }")
    assert browser.overflow() == 0
    browser.page.emulate_media(media="print")
    assert browser.colours()[0] == 255
    ink = browser.page.locator(".confusion-matrix .ink").first
    assert ink.evaluate("text => getComputedStyle(text).fill") == "rgb(29, 31, 33)"
    assert not browser.page.locator(".files").is_visible()


def test_images_are_the_right_ones_and_never_too_many(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "in-progress")
    rng = np.random.default_rng(0)
    (copy / "overlays").mkdir()
    for number in range(12):
        noise_HWC = rng.integers(0, 256, (600, 500, 3), dtype=np.uint8)
        Image.fromarray(noise_HWC).save(copy / "overlays" / f"{number:02d}.png")
    requested = []

    def image(path: str) -> np.ndarray:
        requested.append(path)
        return rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)

    conf = typed(composed(["backbone=vit_tiny", "backbone.pretrained=false", "dataset=folder"]))
    text = run_page.derive(copy, conf, "a name", "1" * 64, [], Album(image))
    assert "Part attention maps" in text
    assert text.count('alt="0') == 8  # of twelve
    assert len(text) < 1_500_000
    page_gallery = gallery.gallery(copy, Album(image))
    wrong = {row["name"]: 1 - float(row["recall"]) for row in per_class(copy)}
    expected = sorted((value for value in wrong.values() if value), reverse=True)
    assert [1 - row["recall"] for row in page_gallery["worst"]] == expected
    sure = [not_none(image["confidence"]) for image, _ in page_gallery["surest"]]
    assert sure == sorted(sure, reverse=True)
    assert not any(image["pred"] == image["label"] for image, _ in page_gallery["surest"])
    for row in page_gallery["worst"]:
        assert {image["label"] for image, _ in row["examples"]} == {row["index"]}
    assert set(requested) <= set((copy / "splits" / "test.txt").read_text().splitlines())


def per_class(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_class.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
