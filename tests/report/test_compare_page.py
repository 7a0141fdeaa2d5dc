"""The page of task=compare: what it shows, where its pictures come from, how it fits a window."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from fgvc.html.class_names import display_names
from fgvc.html.formats import points
from fgvc.report import compare_page
from fgvc.report.compare import class_display_names, compare_runs
from fgvc.report.compare_page import CLASSES, LISTED, PICTURES, PairAlbum, render_comparison
from fgvc.run import main
from tests.report.conftest import OTHER_N


@pytest.fixture
def compared(tmp_path, capfd):
    """compared(run, against, output, *more) -> the printed lines."""

    def start(run: Path, against: Path, output: str, *more: str) -> list[str]:
        target = "" if not output else f"task.output='{tmp_path / output}'"
        command = ["task=compare", f"run={run}", f"against={against}", *filter(None, [target])]
        assert main([*command, *more]) == 0
        return capfd.readouterr().out.splitlines()

    return start


def shots(page: str) -> int:
    return page.count('<figure class="shot">')


def test_the_output_is_a_page_or_json_or_both_and_the_last_line_names_it(pair, compared, tmp_path):
    assert compared(*pair, "a.html")[-1] == f"page: {tmp_path / 'a.html'}"
    assert compared(*pair, "b.json")[-1] == f"as JSON: {tmp_path / 'b.json'}"
    name = f"compare_{pair[0].name}_{pair[1].name}"
    assert compared(*pair, "both/")[-1] == f"page: {tmp_path / 'both' / f'{name}.html'}"
    assert "task.output=compare.html" in compared(*pair, "")[-1]
    written = sorted(path.name for path in tmp_path.rglob("*.[hj]*") if "made" not in path.parts)
    assert [name for name in written if name != "report.html"] == [
        "a.html",
        "b.json",
        f"{name}.html",
        f"{name}.json",
    ]
    assert json.loads((tmp_path / "b.json").read_text())["verdict"] in ("tie", "higher", "lower")


def test_pictures_come_from_the_dataset_or_from_the_pages_of_the_runs(runs, compared, tmp_path):
    pair = runs("linear"), runs("knn")
    result = compare_runs(*pair, force=False)
    changed = [*result["wrong_to_right"], *result["right_to_wrong"]]
    assert changed
    lines = compared(*pair, "with.html")
    page = (tmp_path / "with.html").read_text()
    assert shots(page) == len(changed)
    assert "the dataset was not found" not in page
    assert not any(line.startswith("page: few") for line in lines)
    lines = compared(*pair, "without.html", f"dataset.root={tmp_path / 'gone'}")
    page = (tmp_path / "without.html").read_text()
    recorded = "".join((folder / "report.html").read_text() for folder in pair)
    on_pages = [image for image in changed if f'title="{image["path"]}"' in recorded]
    assert 0 < shots(page) == len(on_pages)
    assert f"no dataset in {tmp_path / 'gone'}: give dataset.root=PATH" in " ".join(lines[-2:])


def test_a_page_without_any_picture_says_so_and_lists_the_images(pair, compared, tmp_path):
    compared(*pair, "page.html")
    page = unescape((tmp_path / "page.html").read_text())
    assert shots(page) == 0
    assert page.count("No pictures: the dataset was not found") == 2
    result = compare_runs(*pair, force=False)
    for image in result["wrong_to_right"]:
        assert image["path"] in page
    assert f"Right in run, wrong in against: {len(result['wrong_to_right'])} images" in page
    for folder in pair:
        link = f"made/{'/'.join(folder.parts[-3:])}/report.html"
        assert f'href="{link}"' in page
        assert (tmp_path / link).is_file()
    assert '<td class="digest">head.name</td>' in page


def test_a_forced_comparison_is_marked(forge, pair, compared, tmp_path):
    other = forge("other", stamp={"split_digest": "1" * 64}, right=OTHER_N[:120])
    compared(pair[0], other, "page.html", "task.force=true")
    page = unescape((tmp_path / "page.html").read_text())
    assert "Forced: these runs are not comparable." in page
    assert "They differ in split (" in page
    assert "left out: 180 of run, 0 of against" in page
    assert "Two runs on 120 common images" in page
    compared(*pair, "plain.html")
    assert "Forced" not in (tmp_path / "plain.html").read_text()


def test_class_names_are_those_for_people(pair, compared, tmp_path):
    out = "\n".join(compared(*pair, "page.html"))
    page = (tmp_path / "page.html").read_text()
    names = {row["class"] for row in compare_runs(*pair, force=False)["wrong_to_right"]}
    assert "005.Eastern_Sooty_Mosstit" in names  # data keep the names of the dataset
    for text in (out, page):
        assert "Eastern Sooty Mosstit" in text
        assert not any(name in text or name.replace("_", " ") in text for name in names)


@pytest.fixture
def large(pair, tmp_path) -> Path:
    """A page of 555 classes with long names, hundreds of changed images, and 30 pictures."""
    result, count = compare_runs(*pair, force=False), 555
    names = [f"{c:03d}.A_Long_Name_of_a_Species_(Female/Eclipse_male)_{c}" for c in range(count)]
    rng = np.random.default_rng(0)
    result["classes"] = sorted(
        (
            {"id": f"id {c}", "name": names[c], "images": 30, "run": a, "against": b}
            | {"difference": a - b}
            for c, (a, b) in enumerate((rng.integers(31, size=(count, 2)) / 30).tolist())
        ),
        key=lambda row: -abs(row["difference"]),
    )
    for key in ("wrong_to_right", "right_to_wrong"):
        result[key] = [
            {"path": f"{key}/{i:04d}_{'long' * 9}.jpg", "class": names[i % count]}
            | {"run": names[(i + 1) % count], "against": None if i % 7 == 0 else names[i % count]}
            for i in range(700)
        ]
    album = PairAlbum(lambda path: np.full((40, 60, 3), 127, np.uint8), [])
    shown = dict(zip(names, display_names(names), strict=True))
    target = tmp_path / "large.html"
    target.write_text(render_comparison(result, pair, shown, album, tmp_path), encoding="utf-8")
    return target


def test_long_lists_end_with_a_count(large):
    page = unescape(large.read_text())
    assert shots(page) == 2 * PICTURES
    assert page.count(f"{PICTURES} pictures, of the classes that changed most") == 2
    assert page.count(f"The first {LISTED} of 700 images by class") == 2
    assert f"The {CLASSES} that changed most." in page
    assert page.count('<svg class="span"') == CLASSES
    assert page.count('<details class="class-list">') == 1
    assert len(re.findall(r"<tr>(<td>[^<]*</td>){5}</tr>", page)) == 555
    assert len(re.findall(r'class="value soft"', page)) == 2 * LISTED
    assert len(page) < 2_000_000


def test_many_changed_classes_are_listed_by_super_category(pair, tmp_path, monkeypatch, opened):
    """The most images in difference first; a click sorts points with their signs."""
    monkeypatch.setattr(compare_page, "CLASSES", 1)
    result = compare_runs(*pair, force=False)
    names = class_display_names(*pair)
    text = render_comparison(result, pair, names, PairAlbum(None, []), tmp_path)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    browser = opened(tmp_path / "page.html")
    page = browser.page
    lists = page.locator(".class-list")
    labelmap = json.loads((pair[0] / "labelmap.json").read_text())
    group_of = {row["id"]: labelmap["parents"][row["index"]][-1] for row in labelmap["classes"]}
    summaries = lists.locator("summary").all_inner_texts()
    assert len(summaries) == len(labelmap["nodes"]) > 1
    assert all("classes changed" in summary for summary in summaries)
    for summary in summaries:
        node = next(key for key, name in labelmap["nodes"].items() if summary.startswith(name))
        rows = [row for row in result["classes"] if group_of[row["id"]] == node]
        images = sum(row["images"] for row in rows)
        more = round(sum(row["difference"] * row["images"] for row in rows))
        assert f"{points(more / images)} points on {images} images" in summary
    lists.first.locator("summary").click()
    header = lists.first.locator("th", has_text="points")
    for order in (1, -1):
        header.locator("button").click()
        cells = lists.first.locator("tbody td:nth-child(2)").all_inner_texts()
        values = [order * float(cell.replace("−", "-")) for cell in cells]
        assert values == sorted(values)
    assert browser.console == []


def test_the_page_fits_a_laptop_a_phone_and_paper(large, opened):
    for scheme, width in (("light", 1280), ("dark", 390)):
        browser = opened(large, scheme, width)
        browser.picture(f"compare-{scheme}-{width}")
        assert browser.overflow() == 0
        paper, ink = browser.colours()
        assert (paper > 240 > 60 > ink) if scheme == "light" else (paper < 40 < 200 < ink)
    page = browser.page
    header = page.locator("table.sortable th:visible", has_text="difference")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    values = page.locator("table.sortable:visible tbody td:nth-child(2)").all_inner_texts()
    numbers = [float(value.replace("−", "-")) for value in values]
    assert numbers == sorted(numbers)
    page.emulate_media(media="print", color_scheme="dark")
    paper, ink = browser.colours()
    assert paper == 255 > 60 > ink
    assert page.pdf().startswith(b"%PDF")
    assert (browser.console, browser.requests) == ([], [large.as_uri()])
