"""Synthetic birds: deterministic bytes, complete or absent, classes that differ only in parts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import astuple, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fgvc.config.schema import Generator
from fgvc.data.datasets.synthetic import scene
from fgvc.data.datasets.synthetic.bird import PARTS, Shape, draw_bird
from fgvc.data.datasets.synthetic.folder import VERSION, render, write
from fgvc.data.datasets.synthetic.species import (
    ATTRIBUTES,
    GENUS_ATTRIBUTES,
    GENUS_SIZE,
    hierarchy,
    species,
)
from fgvc.store import temporary_files
from fgvc.types import UserError
from tests.jobs import HANG

SMALL = Generator(version=VERSION, classes=3, train_per_class=2, test_per_class=1, side=96, seed=5)
PLANTED = (255, 0, 255)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def table(root: Path, name: str) -> list[list[str]]:
    return [line.split(" ") for line in (root / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("small") / "birds", SMALL)


# ---- species


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_species_look_similar(seed):
    codes = [astuple(kind.code) for kind in species(64, seed)]

    def distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
        return sum(value != other for value, other in zip(a, b, strict=True))

    apart = [distance(a, b) for a, b in combinations(codes, 2)]
    siblings = [
        distance(a, b) for i in range(0, 64, GENUS_SIZE) for a, b in
        combinations(codes[i : i + GENUS_SIZE], 2)
    ]  # fmt: skip
    assert min(apart) >= 1
    assert max(apart) <= 5
    assert max(siblings) <= 2


@pytest.mark.parametrize("classes", [2, 12, 64])
def test_every_species_has_a_name_and_valid_features(classes):
    all_species = species(classes, 3)
    assert len({kind.name for kind in all_species}) == classes
    for kind in all_species:
        legal = zip(astuple(kind.code), ATTRIBUTES.values(), strict=True)
        assert all(value in values for value, values in legal)


def test_more_classes_keep_the_earlier_ones():
    assert species(64, 3)[:5] == species(5, 3)
    assert species(12, 3) != species(12, 4)


# ---- the folder


def test_a_genus_is_the_species_that_share_its_features():
    generator = replace(SMALL, classes=8)
    above = hierarchy(generator)
    all_species = species(generator.classes, generator.seed)
    for (a, first), (b, second) in combinations(enumerate(all_species), 2):
        alike = all(
            getattr(first.code, part) == getattr(second.code, part) for part in GENUS_ATTRIBUTES
        )
        assert (above.chain[a] == above.chain[b]) == alike
    assert len(set(above.chain)) == len(above.names) == 3
    assert above.names[above.chain[0][0]].startswith(all_species[0].code.crest)


def test_layout_is_that_of_cub(small):
    images = table(small, "images.txt")
    assert [row[0] for row in images] == [str(n) for n in range(1, 10)]
    assert all((small / "images" / row[1]).is_file() for row in images)
    assert len(list((small / "images").rglob("*.jpg"))) == len(images)
    assert [row[1] for row in table(small, "image_class_labels.txt")] == list("111222333")
    assert [row[1] for row in table(small, "train_test_split.txt")] == list("110110110")
    classes = [row[1] for row in table(small, "classes.txt")]
    assert [row[1].split("/")[0] for row in images[::3]] == classes
    assert classes[0].startswith("001.")
    assert [row[1] for row in table(small, "parts/parts.txt")] == [*PARTS]
    assert len(table(small, "parts/part_locs.txt")) == len(images) * len(PARTS)


def test_boxes_and_visible_parts_are_in_the_image(small):
    sizes = [Image.open(small / "images" / row[1]).size for row in table(small, "images.txt")]
    assert {max(size) for size in sizes} == {SMALL.side}
    for row, size in zip(table(small, "bounding_boxes.txt"), sizes, strict=True):
        x, y, w, h = map(float, row[1:])
        assert 0 <= x < x + w <= size[0]
        assert 0 <= y < y + h <= size[1]
    for image, _, x, y, visible in table(small, "parts/part_locs.txt"):
        wide, high = sizes[int(image) - 1]
        assert (visible == "1") == (0 <= float(x) < wide and 0 <= float(y) < high)


def test_images_are_in_colour(small):
    for row in table(small, "images.txt"):
        image = Image.open(small / "images" / row[1])
        assert image.mode == "RGB"
        assert np.ptp(np.asarray(image).astype(int), axis=2).mean() > 3


def test_licence_and_approval_are_beside_the_images(small):
    assert "CC0-1.0" in (small / "LICENSE").read_text()
    approval = (small / "APPROVAL.md").read_text()
    assert "no person" in approval
    assert f"version {VERSION}" in approval


# ---- the same bytes


def test_pool_draws_the_same_bytes(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fgvc.data.datasets.synthetic.folder.MIN_POOL_IMAGES", 4)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert contents(write(tmp_path / "birds", SMALL)) == contents(small)


def test_an_image_depends_on_its_own_stream_alone(small):
    name = table(small, "images.txt")[4][1]  # class 2, second training image
    again = render(species(3, SMALL.seed)[1].code, (SMALL.seed, 1, 0, 1), SMALL.side)
    saved = np.asarray(Image.open(small / "images" / name)).astype(int)
    assert abs(saved - np.asarray(again.image)).mean() < 6  # JPEG's loss; another image: over 30


def test_another_seed_draws_other_images(small, tmp_path):
    other = contents(write(tmp_path / "birds", replace(SMALL, seed=6)))
    jpegs = {data for name, data in other.items() if name.endswith(".jpg")}
    assert jpegs.isdisjoint(contents(small).values())


# ---- whole or absent


def test_a_complete_copy_is_left_alone(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    advanced: list[int] = []
    assert write(small, SMALL, lambda n, note="": advanced.append(n)) == small
    assert advanced == []
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_progress_counts_every_image(tmp_path):
    advanced: list[int] = []
    write(tmp_path / "birds", SMALL, lambda n, note="": advanced.append(n))
    assert sum(advanced) == 9


@pytest.mark.parametrize("spoil", ["settings", "index", "stranger", "file"])
def test_other_content_is_refused_and_kept(small, tmp_path, spoil):
    root, config = tmp_path / "birds", SMALL
    if spoil == "stranger":
        root.mkdir()
        (root / "notes.txt").write_text("mine")
    elif spoil == "file":
        root.write_text("mine")
    else:
        shutil.copytree(small, root)
    if spoil == "settings":
        config = replace(SMALL, seed=SMALL.seed + 1)
    if spoil == "index":
        (root / "images.txt").write_text("")
        (root / "notes.txt").write_text("mine")  # so it is not only ours to replace
    before = contents(root)
    with pytest.raises(UserError, match=r"dataset\.root=") as caught:
        write(root, config)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(root) == before


def test_an_empty_folder_is_filled(small, tmp_path):
    assert contents(write(tmp_path, SMALL)) == contents(small)


@pytest.mark.fault(51)
def test_an_interrupted_run_leaves_nothing_and_a_killed_one_does_no_harm(small, tmp_path):
    def stop(n: int, note: str = "") -> None:
        raise KeyboardInterrupt

    root = tmp_path / "birds"
    with pytest.raises(KeyboardInterrupt):
        write(root, SMALL, stop)
    assert [path.name for path in tmp_path.iterdir()] == [".birds.lock"]
    stale = tmp_path / f".birds.{temporary_files.this_host()}.999999999.00000000.tmp"
    (stale / "images").mkdir(parents=True)
    (stale / "images" / "half.jpg").write_bytes(b"\xff\xd8")
    assert contents(write(root, SMALL)) == contents(small)
    assert not stale.exists()


def test_two_processes_at_once_both_succeed_with_the_same_bytes(small, tmp_path):
    root = tmp_path / "birds"
    code = (
        "import sys; from pathlib import Path; from fgvc.config.schema import Generator\n"
        "from fgvc.data.datasets.synthetic.folder import write\n"
        "write(Path(sys.argv[1]), Generator(*map(int, sys.argv[2:])))"
    )
    command = [sys.executable, "-c", code, str(root), *map(str, astuple(SMALL))]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [each.wait(HANG) for each in both] == [0, 0]
    assert contents(root) == contents(small)


@pytest.mark.parametrize("change", [{"version": VERSION + 1}, {"seed": -1}])
def test_settings_that_cannot_be_drawn_are_refused(tmp_path, change):
    ((name, value),) = change.items()
    with pytest.raises(UserError, match=rf"dataset\.generator\.{name}={value}"):
        write(tmp_path / "birds", replace(SMALL, **change))
    assert list(tmp_path.iterdir()) == []


# ---- where things are


def draw_planted(monkeypatch, parts: set[str], stream: tuple[int, int, int, int]) -> scene.Drawing:
    """An image without haze or grain; each named part has a distinct colour."""
    real = draw_bird

    def painted(*args):
        return [
            Shape(each.part, each.xy_M2, PLANTED if each.part in parts else each.rgb)
            for each in real(*args)
        ]

    monkeypatch.setattr(scene, "draw_bird", painted)
    monkeypatch.setattr(scene, "_expose", lambda rng, image: image)
    monkeypatch.setattr(scene, "_shade", lambda image, row, half: image)
    return render(species(12, 0)[stream[1]].code, stream, 320)


def planted_pixels(image: Image.Image) -> np.ndarray:
    """x, y of the planted pixels' centres, measured from the image's corner."""
    hit_HW = (abs(np.asarray(image).astype(int) - PLANTED) < 100).all(axis=2)
    return np.argwhere(hit_HW)[:, ::-1] + 0.5


@pytest.mark.parametrize("part", ["beak", "eye", "crown"])
@pytest.mark.parametrize("row", range(6))
def test_a_part_is_at_its_drawn_position(monkeypatch, part, row):
    drawing = draw_planted(monkeypatch, {part}, (0, row * 2, 0, row))
    x, y, _ = drawing.parts[part]
    slack = 12 if part == "crown" else 3  # other parts cover some of it
    assert np.abs(planted_pixels(drawing.image).mean(0) - (x, y)).max() < slack


@pytest.mark.parametrize("part", ["tail", "wing", "breast", "throat", "belly", "back", "nape"])
def test_a_part_is_on_its_painted_pixels(monkeypatch, part):
    own = {part} if part in {"tail", "wing"} else {"body", "breast"}
    for row in range(6):
        drawing = draw_planted(monkeypatch, own, (0, row * 2, 0, row))
        x, y, visible = drawing.parts[part]
        if visible:
            assert np.linalg.norm(planted_pixels(drawing.image) - (x, y), axis=1).min() < 2


@pytest.mark.parametrize("row", range(6))
def test_the_box_is_tight(monkeypatch, row):
    drawing = draw_planted(monkeypatch, {"body", *PARTS}, (0, row * 2, 0, row))
    pixels = planted_pixels(drawing.image)
    x, y, w, h = drawing.box
    drawn = [*(pixels.min(0) - 0.5), *(pixels.max(0) + 0.5)]
    assert np.abs(np.array(drawn) - (x, y, x + w, y + h)).max() < 2


# ---- features that separate the classes


def accuracy(x_ND: np.ndarray, label_N: np.ndarray, test_N: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
    return model.fit(x_ND[~test_N], label_N[~test_N]).score(x_ND[test_N], label_N[test_N])


def histogram(pixels_N3: np.ndarray) -> np.ndarray:
    counts = np.histogramdd(pixels_N3, bins=(5, 5, 5), range=((0, 256),) * 3)[0]
    return np.sqrt(counts.ravel() / max(len(pixels_N3), 1))


def crop(image: Image.Image, x: float, y: float, half: int) -> np.ndarray:
    box = (round(x) - half, round(y) - half, round(x) + half, round(y) + half)
    return np.asarray(image.crop(box).resize((8, 8), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """12 classes x (20 + 12) images: name -> one row of features per image."""
    rows: dict[str, list[np.ndarray]] = {}
    all_species, streams = species(12, 0), [(c, i) for c in range(12) for i in range(32)]
    for label, index in streams:
        drawing = render(all_species[label].code, (0, label, int(index >= 20), index), 160)
        image, (x, y, w, h) = np.asarray(drawing.image), drawing.box
        outside_HW = np.ones(image.shape[:2], dtype=bool)
        outside_HW[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = False
        flip = drawing.parts["beak"][0] < drawing.parts["tail"][0]
        parts = [
            crop(drawing.image, *drawing.parts[p][:2], 14)
            for p in ("crown", "wing", "tail", "breast")
        ]
        parts = [part[:, ::-1] if flip else part for part in parts]
        for name, value in {
            "background": histogram(image[outside_HW]),
            "colours": histogram(image.reshape(-1, 3)),
            "thumbnail": np.asarray(drawing.image.resize((8, 8), Image.Resampling.BOX)).ravel(),
            "place": np.array([x + w / 2, y + h / 2, *drawing.image.size]),
            "parts": np.stack(parts).ravel(),
        }.items():
            rows.setdefault(name, []).append(value)
    label_N = np.array([label for label, _ in streams])
    test_N = np.array([index >= 20 for _, index in streams])
    return {name: accuracy(np.stack(x), label_N, test_N) for name, x in rows.items()}


@pytest.mark.parametrize(("view", "most"), [("background", 0.2), ("place", 0.2)])
def test_nuisances_do_not_distinguish_classes(views, view, most):
    assert views[view] < most  # chance is 1/12


@pytest.mark.parametrize("view", ["colours", "thumbnail"])
def test_parts_distinguish_classes_better_than_the_whole(views, view):
    assert views[view] < 0.6
    assert views["parts"] > 0.5
    assert views["parts"] > views[view] + 0.2


def test_file_size_does_not_distinguish_classes(tmp_path):
    config = replace(SMALL, classes=6, train_per_class=16, test_per_class=16)
    root = write(tmp_path / "birds", config)
    images = [root / "images" / row[1] for row in table(root, "images.txt")]
    label_N = np.array([int(row[1]) for row in table(root, "image_class_labels.txt")])
    test_N = np.array([row[1] == "0" for row in table(root, "train_test_split.txt")])
    bytes_N1 = np.array([[path.stat().st_size] for path in images], dtype=float)
    assert accuracy(bytes_N1, label_N, test_N) < 0.35  # chance is 1/6
