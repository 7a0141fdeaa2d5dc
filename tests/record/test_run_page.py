"""report.html of a run: consistent with the folder, self-contained, safe with any name."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fgvc import metrics
from fgvc.config.compose import composed, typed
from fgvc.html import class_lists
from fgvc.record import prediction_tables, run_page
from fgvc.record.run_page import gallery
from fgvc.record.run_page.gallery import Album
from fgvc.run import main
from fgvc.types import LabelMap
from tests.narrow import not_none

NASTY = ('<b>x</b> & "y"', "</script><i>", "große = {{ 7 * 7 }}")
BIRDS = ("Rusty_Blackbird", "Brewer_Blackbird", "Sooty_Albatross", "Groove_billed_Ani")
FEW = ("resolution.side=64", "resolution.name=r64", "task.c_count=3", "runtime.num_workers=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A linear probe of three classes whose class and file names need escaping.

    Its job started 1000 s before the code that runs it.
    """
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
    words = ["backbone=vit_tiny", "backbone.pretrained=false", *data, *FEW, *places]
    assert main(words, started=time.monotonic() - 1000) == 0
    return next((home / "output").glob("*/*/*/ckpt.bin")).parent


@pytest.fixture(scope="module")
def derived(folder, tmp_path_factory) -> Callable[..., Path]:
    """derived(classes, files=…, groups=…, **numbers) -> the page of a probe with part attention.

    Made up: one error in four; every class has another class with which it is confused. files:
    further files of the folder. groups: super-categories. numbers: further entries of metrics.json.
    """
    words = ("backbone=vit_tiny", "backbone.pretrained=false", "part_attention=transfg")
    conf = typed(composed([*words, "dataset=folder"]))

    def page(
        classes: int,
        files: Mapping[str, bytes] = MappingProxyType({}),
        groups: int = 0,
        **numbers,
    ) -> Path:
        copy = shutil.copytree(folder, tmp_path_factory.mktemp("derived") / "run" / "c" / "k")
        names = [f"{index:03d}.{BIRDS[index % 4]}_{index}" for index in range(classes)]
        label_N = np.tile(np.arange(classes), 8)
        pred_N = np.where(np.arange(len(label_N)) // classes % 4, label_N, classes - 1 - label_N)
        logits_NC = (
            np.eye(classes, dtype=np.float32)[pred_N] * np.linspace(9, 5, len(label_N))[:, None]
        )
        labelmap: dict[str, Any] = {
            "classes": [{"index": k, "id": f"{k}", "name": n} for k, n in enumerate(names)]
        }
        if groups:
            labelmap["parents"] = [[f"g{index % groups}"] for index in range(classes)]
            labelmap["nodes"] = {f"g{k}": f"<i>Order {k}" for k in range(groups)}
        (copy / "labelmap.json").write_text(json.dumps(labelmap))
        rows = metrics.per_class(logits_NC, label_N, names)
        ids = tuple(str(index) for index in range(classes))
        table = prediction_tables.class_rows_csv(rows, LabelMap(ids, tuple(names)))
        (copy / "per_class.csv").write_text(table)
        confidence_N = np.exp(metrics.log_probabilities(logits_NC).max(axis=1))
        columns = {
            "path": [f"{index}.jpg" for index in range(len(label_N))],
            "split": ["test"] * len(label_N),
            "label": label_N,
            "pred": pred_N,
            "confidence": confidence_N,
        }
        pq.write_table(pa.table(columns), copy / "predictions.parquet")
        matrix = metrics.tally(pred_N, label_N, classes)
        record = json.loads((copy / "metrics.json").read_text())
        record |= {"worst_pairs": metrics.worst_pairs(matrix, 10), **numbers}
        (copy / "metrics.json").write_text(json.dumps(record))
        for name, data in files.items():
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_bytes(data)
        noise_HWC = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        album = Album(lambda path: noise_HWC)
        text = run_page.derive(copy, conf, "a name", "1" * 64, [], album)
        (copy / "report.html").write_text(text, encoding="utf-8")
        return copy / "report.html"

    return page


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


def test_the_wall_time_is_that_of_the_whole_job(folder):
    """In the stamp, in metrics.json and on the page."""
    stamp, numbers = (
        json.loads((folder / name).read_text()) for name in ("env_stamp.json", "metrics.json")
    )
    seconds = numbers["cost"]["seconds"]
    assert 1000 < seconds == stamp["seconds"] < 1600
    started, finished = (datetime.fromisoformat(stamp[key]) for key in ("started", "finished"))
    assert abs(finished - started - timedelta(seconds=seconds)) < timedelta(seconds=5)
    assert f"<dd>{seconds / 60:.0f} min for the whole job" in text_of(folder)


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
    assert "Where attention looked" in text
    assert text.count('alt="0') == 8  # of twelve
    assert len(text) < 1_500_000
    images = gallery.read_test_images(copy / "predictions.parquet")
    page_gallery = gallery.gallery(copy, images, Album(image))
    wrong = {row["name"]: 1 - float(row["recall"]) for row in per_class(copy)}
    expected = sorted((value for value in wrong.values() if value), reverse=True)
    assert [1 - row["recall"] for row in page_gallery["worst"]] == expected
    sure = [not_none(image["confidence"]) for image, _ in page_gallery["surest"]]
    assert sure == sorted(sure, reverse=True)
    assert not any(image["pred"] == image["label"] for image, _ in page_gallery["surest"])
    for row in page_gallery["worst"]:
        assert {image["label"] for image, _ in row["examples"]} == {row["index"]}
    assert set(requested) <= set((copy / "splits" / "test.txt").read_text().splitlines())


def links(page) -> list[str]:
    """The links of a page that lead out of it."""
    hrefs = page.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    return [href for href in hrefs if not href.startswith("#")]


def test_links_exist_where_the_page_lies_in_its_place_and_nowhere_else(folder, tmp_path, opened):
    """In a moved output root too; a page passed on alone says where the files are."""
    root = tmp_path / "moved root"
    shutil.copytree(folder, root.joinpath(*folder.parts[-3:]))
    (root / "baselines.html").touch()
    place = "/".join(folder.parts[-3:])
    browser = opened(root / place / "report.html")
    found = links(browser.page)
    assert found[0] == "../../../baselines.html"
    assert {"ckpt.bin", "confusion.csv", "tb/"} <= set(found)
    for href in found:
        assert (root / place / href).exists(), href
    assert browser.page.locator("[data-unless]:visible").count() == 0
    # the folder of the run without the folders above it: its files, but no table
    shutil.copytree(folder, tmp_path / folder.name)
    beside = opened(tmp_path / folder.name / "report.html").page
    assert links(beside) == found[1:]
    assert beside.locator("[data-unless]:visible").count() == 1
    for name in ("report.html", f"{folder.name}.html"):
        alone = opened(Path(shutil.copy(folder / "report.html", tmp_path / name)))
        assert links(alone.page) == []
        notes = alone.page.locator("[data-unless]:visible").all_text_contents()
        assert len(notes) == 2
        assert place.partition("/")[0] in notes[0]
        assert place in notes[1]
        assert alone.console == []
    alone.picture("run-page-alone")


def test_without_scripts_no_link_leads_out_of_the_page(folder, chromium):
    page = chromium.new_page(java_script_enabled=False)
    page.goto((folder / "report.html").as_uri())
    assert links(page) == []
    assert page.locator("[data-unless]:visible").count() == 2
    page.close()


def overlay(top: int) -> bytes:
    """A red image of 90 x 60 pixels below a white title."""
    image = Image.new("RGB", (90, 60 + top), "white")
    image.paste((200, 0, 0), (0, top, 90, 60 + top))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def mean(value: float | None) -> dict[str, float | int | None]:
    return {"value": value, "images": 40}


PARTS = {
    name: {"in_box": mean(share), "part_coverage": mean(None), "part_distance": mean(share / 4)}
    for name, share in (("transfg", 0.721), ("random", 0.513), ("centre", 0.937))
}


def test_where_attention_looked(derived, opened):
    """The listed errors first, each linked with its place there, beside random and centre."""
    drawn = {"00-a.png": "0.jpg", "01-b.png": "1.jpg", "02-c.png": "30.jpg"}
    files = {f"overlays/{name}": overlay(17) for name in (*drawn, "03-d.png")}
    facts = {name: {"path": path, "title_px": 17} for name, path in drawn.items()}
    files["overlays/images.json"] = json.dumps(facts).encode()
    file = derived(20, files, parts={**PARTS, "tokens": 3})
    browser = opened(file)
    section = browser.page.locator("section", has_text="Where attention looked")
    assert section.locator("thead th").all_text_contents() == [
        "patches, 3 per image",
        "in the object's box, %",
        "to the nearest part, box diagonals",
    ]
    assert section.locator("tbody tr").all_inner_texts() == [
        "transfg (this run)\t72.1\t0.180",
        "random patches\t51.3\t0.128",
        "central patches\t93.7\t0.234",
    ]
    assert "Means over 40 test images. The other rows are not runs" in section.inner_text()
    assert section.locator(".legend li").count() == 3
    captions = section.locator("figcaption").all_inner_texts()
    listed = "among the most confident errors"
    assert captions == [
        f"Groove billed Ani 19 99.8 %: wrong, it is Rusty Blackbird 0\n{listed}",
        f"Sooty Albatross 18 99.8 %: wrong, it is Brewer Blackbird 1\n{listed}",
        "Sooty Albatross 10 99.5 %: right",
    ]
    images = section.locator("figure img")
    assert images.evaluate_all("all => all.map(one => one.naturalHeight)") == [60, 60, 60, 77]
    for number in (0, 1):
        error = browser.page.locator(f"#error-{number}")
        assert error.locator("a").get_attribute("href") == f"#map-{number}"
        back = section.locator(f"#map-{number} figcaption a")
        assert back.get_attribute("href") == f"#error-{number}"
        # the same image in both places
        assert error.locator("img").get_attribute("title") == f"{number}.jpg"
    assert browser.page.locator("#error-2 a").count() == 0
    browser.picture("run-page-attention")


def test_damaged_facts_of_overlays_crop_nothing(derived):
    """Huge crops of a forger would fill the memory."""
    facts = {"00-a.png": {"path": "0.jpg", "title_px": -(10**9)}}
    files = {"overlays/00-a.png": overlay(17), "overlays/images.json": json.dumps(facts).encode()}
    text = derived(3, files).read_text(encoding="utf-8")
    assert 'width="90" height="77"' in text


def test_class_names_are_for_people_and_the_worst_block_stands_for_200_classes(derived, opened):
    """20 classes fit; at 390 px, wide parts scroll in their own box."""
    for classes, named in ((20, 20), (200, 24)):
        file = derived(classes)
        browser = opened(file, "dark")
        text = browser.page.locator("main").inner_text()
        assert not re.search(r"\d{3}\.[A-Z]|(Rusty|Brewer|Sooty|Groove|billed)_", text)
        plot = browser.page.locator("svg.confusion-matrix")
        assert "Groove billed Ani" in plot.text_content()
        names = plot.locator("text.ink").all_text_contents()
        assert len(names) == 2 * named
        # confused pairs are neighbours
        indices = [int(name.rpartition(" ")[2]) for name in names[::2]]
        pairs = zip(indices[::2], indices[1::2], strict=True)
        assert all(first + second == classes - 1 for first, second in pairs)
        fill = plot.locator(".paper").evaluate("paper => getComputedStyle(paper).fill")
        assert max(map(int, re.findall(r"\d+", fill))) < 40
        assert ("the worst block, with 48 of 400 errors" in text) == (classes == 200)
        browser.picture(f"run-page-{classes}-dark")
        phone = opened(file, width=390)
        assert phone.overflow() == 0
        box = phone.page.get_by_role("region", name="Confusion matrix")
        assert box.evaluate("box => box.scrollWidth > box.clientWidth + 100")
        ink = phone.page.locator(".confusion-matrix .ink").first
        assert ink.bounding_box()["height"] > 9  # legible: not shrunk to the width of the phone
        phone.picture(f"run-page-{classes}-phone")


def test_many_classes_are_listed_by_super_category_the_hardest_first(derived, opened):
    browser = opened(derived(200, groups=3))
    lists = browser.page.locator(".class-list")
    assert lists.locator("summary").all_inner_texts() == [
        "<i>Order 0: 67 classes, 75.0 % of 536 images right",
        "<i>Order 1: 67 classes, 75.0 % of 536 images right",
        "<i>Order 2: 66 classes, 75.0 % of 528 images right",
    ]
    assert lists.locator("tbody tr:visible").count() == 0  # folded
    lists.first.locator("summary").click()
    rows = lists.first.locator("tbody tr")
    assert rows.first.locator("td").all_inner_texts() == [
        "Rusty Blackbird 0",
        "75.0",
        "8",
        "Groove billed Ani 199 (2)",
    ]
    assert rows.count() == 67
    text = browser.page.locator("main").inner_text()
    assert "132 of 400 errors are within a super-category" in text
    region = browser.page.get_by_role("region", name="Confusion matrix by super-category")
    assert region.locator(".counts text").count() == 5
    search = browser.page.get_by_label("Search classes")
    search.fill("ALBATROSS 19")
    found = lists.locator("tbody tr:visible")
    assert [text.split("\t")[0] for text in found.all_inner_texts()] == [
        "Sooty Albatross 198",
        "Sooty Albatross 190",
        "Sooty Albatross 194",
    ]
    assert browser.page.locator(".class-search output").inner_text() == "3 of 200 classes"
    search.fill("no such bird")
    assert lists.locator("summary:visible").count() == 0
    search.fill("")
    assert lists.locator("summary:visible").count() == 3
    assert lists.locator("tbody tr:visible").count() == 0
    lists.first.locator("summary").click()
    assert lists.locator("tbody tr:visible").count() == 67
    assert browser.console == []
    browser.page.set_viewport_size({"width": 390, "height": 800})
    assert browser.overflow() == 0


def test_the_confusions_of_few_classes_are_no_list(derived):
    assert ["class-list" in derived(classes).read_text() for classes in (40, 41)] == [False, True]


def test_a_page_of_5089_classes_is_bounded(derived, monkeypatch):
    """Megabytes and elements; chromium lays out the open lists only, and loads it in .5 s."""
    text = derived(5089, groups=13).read_text()
    assert len(text.encode()) < 3_000_000
    assert text.count("<tr>") < 5_400
    assert text.count("<") < 90_000
    assert "per_class.csv" in text
    assert "that file holds all" not in text
    monkeypatch.setattr(class_lists, "MAX_ROWS", 100)
    text = derived(300).read_text()
    assert "The hardest 100 of 300 classes are listed; that file holds all." in text
    assert text.count("<tr><td>") < 130


def test_print_has_no_empty_page_and_no_plot_in_two(derived, opened, tmp_path):
    browser = opened(derived(20, parts={**PARTS, "tokens": 3}))
    pdf = browser.page.pdf(prefer_css_page_size=True)
    texts = [zlib.decompress(data).count(b"Tj") for data in page_streams(pdf)]
    assert 3 <= len(texts) <= 9
    assert min(texts) > 25, texts
    browser.page.emulate_media(media="print")
    browser.page.set_viewport_size({"width": 1032, "height": 703})  # A4 within its margins
    box = browser.page.locator("section", has_text="Confusion matrix").last.bounding_box()
    assert box["height"] < 703
    header = browser.page.locator("thead").first
    assert header.evaluate("head => getComputedStyle(head).display") == "table-header-group"


def page_streams(pdf: bytes) -> list[bytes]:
    """The compressed content of each page of a PDF by Chromium."""
    objects = dict(re.findall(rb"(\d+) 0 obj(.*?)endobj", pdf, re.DOTALL))
    pages = [body for body in objects.values() if re.search(rb"/Type\s*/Page\b", body)]
    contents = [objects[not_none(re.search(rb"/Contents (\d+) 0 R", body))[1]] for body in pages]
    return [body.partition(b"stream")[2].strip(b"\r\n") for body in contents]


def test_top5_is_shown_from_eleven_classes_on(derived):
    row = '<th scope="row">top-5'
    assert [row in derived(classes).read_text() for classes in (3, 10, 11)] == [False, False, True]


def test_ties_among_classes_are_broken_by_size(folder, tmp_path):
    names = [f"class {index}" for index in range(12)]
    recalls = [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    supports = [3, 9, 5, 9, 1, 7, 2, 4, 4, 8, 2, 6]
    rows = enumerate(zip(names, recalls, supports, strict=True))
    table = [f"{index},{index},{','.join(map(str, row))}" for index, row in rows]
    (tmp_path / "per_class.csv").write_text("\n".join(["index,id,name,recall,support", *table]))
    shown = gallery.gallery(tmp_path, [], Album(lambda path: None))
    assert [row["index"] for row in shown["worst"]] == [9, 11, 7, 8, 6, 10]
    assert [row["index"] for row in shown["best"]] == [1, 3, 5, 2]


def per_class(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_class.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
