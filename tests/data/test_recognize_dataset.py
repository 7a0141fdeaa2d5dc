"""Errors for a refused folder name the dataset in the folder and the command that reads it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fgvc.config.compose import composed, typed
from fgvc.data import dataset, recognize_dataset
from fgvc.data.dataset_spec import readers
from fgvc.data.doctor import Examination, examine
from fgvc.data.index import Index
from fgvc.task.doctor import _title
from fgvc.types import Progress, UserError

OFFICIAL = ("cub", "cars", "dogs", "nabirds", "inat2017")
SPECIES = "00000_Animalia_Chordata_Aves_Larus_canus", "00001_Animalia_Chordata_Aves_Larus_fuscus"


@pytest.fixture
def tree(tmp_path, jpeg) -> Callable[..., Path]:
    """`tree("a/b", "x.txt")`: a root with these folders, three images in each, and empty files."""

    def make(*names: str) -> Path:
        root = tmp_path / "größe = 3"
        for place, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if Path(name).suffix in (".txt", ".csv", ".json", ".mat"):
                (root / name).write_text("")
                continue
            (root / name).mkdir()
            for number in range(3):
                (root / name / f"{number}.jpg").write_bytes(jpeg(10 * place + number))
        return root

    return make


@contextmanager
def silent(title: str, total: int | None, unit: str) -> Iterator[Progress]:
    yield lambda n, note="": None


def refusal_message(conf, reader: str, root: Path) -> str:
    """The error message of a run; task=doctor must suggest the same fix."""
    with pytest.raises(UserError) as caught:
        dataset.read(conf(reader, root))
    message = str(caught.value)
    assert "\n" not in message
    examined: Examination = examine(conf(reader, root), 1, silent)
    assert examined.wrong
    assert any(message.endswith(f"; {finding.fix}") for finding in examined.findings), message
    return message


def read_advised(message: str) -> Index:
    """Read a dataset with the command at the end of a message."""
    arguments = shlex.split(message[message.rindex("dataset=") :])
    assert len(arguments) == 2
    return dataset.read(typed(composed(arguments)).dataset)


# --- images without the official files: dataset=folder ---


@pytest.mark.parametrize(
    ("reader", "names", "below"),
    [
        ("cub", ("images/001.Gull", "images/002.Wren", "attributes/a.txt"), "images"),
        ("cub", ("CUB/images/001.Gull", "CUB/images/002.Wren", "CUB/segmentations/001.Gull",
          "CUB/segmentations/002.Wren"), "CUB/images"),
        ("cars", ("car_data/car_data/train/Audi S4", "car_data/car_data/train/Ram C",
          "car_data/car_data/test/Audi S4", "car_data/car_data/test/Ram C", "anno_train.csv"),
          "car_data/car_data"),
        ("dogs", ("Images/n02085620-Chihuahua", "Images/n02085936-Maltese_dog"), "Images"),
        ("inat2017", ("robin", "wren"), "."),
        ("nabirds", ("birds/train/robin", "birds/train/wren", "birds/test/robin",
          "birds/test/wren"), "birds"),
    ],
)  # fmt: skip
def test_images_by_class_are_read_as_a_folder(conf, tree, reader, names, below):
    root = tree(*names)
    message = refusal_message(conf, reader, root)
    index = read_advised(message)
    assert index.root == root / below
    assert len(index.labelmap) == 2
    assert len(index) == 3 * sum((root / name).is_dir() and "segment" not in name for name in names)


@pytest.mark.parametrize("reader", ["cub", "inat2017"])
def test_inaturalist_2021_is_named(conf, tree, reader):
    names = [f"{part}/{species}" for part in ("train_mini", "val") for species in SPECIES]
    root = tree(*names, "train_mini.json", "val.json")
    message = refusal_message(conf, reader, root)
    assert "this is iNaturalist 2021, and dataset=inat2017 reads 2017 only" in message
    index = read_advised(message)
    assert (len(index), index.test_source) == (12, "val")


@pytest.mark.parametrize("year", ["2018", "2019"])
def test_other_years_of_inaturalist_are_named(conf, tree, year):
    folders = [f"train_val{year}/{name}" for name in ("Aves/1", "Aves/2", "Fungi/3", "Fungi/4")]
    root = tree(*folders, f"train{year}.json", f"val{year}.json")
    message = refusal_message(conf, "inat2017", root)
    assert f"this is iNaturalist {year}, and dataset=inat2017 reads 2017 only: list path" in message
    assert message.endswith("read it with dataset=table")


def test_a_root_with_nothing_known_keeps_its_message(conf, tree):
    root = tree("a/notes.txt")
    message = refusal_message(conf, "cub", root)
    assert message.startswith(f"dataset.root={root}: holds no images.txt, image_class_labels.txt")
    assert message.endswith("; set dataset.root=")


@pytest.mark.parametrize("name", ["lists/files.txt", "annotations-mat/001.Gull/a.mat"])
def test_cub_200_of_2010_is_refused_as_such(conf, tree, name):
    root = tree("images/001.Gull", "images/002.Wren", name)
    assert "this is CUB-200 (2010), another set of images" in refusal_message(conf, "cub", root)


# --- another published dataset ---


@pytest.mark.parametrize(
    ("reader", "published"),
    [*zip(OFFICIAL, (*OFFICIAL[1:], "cub"), strict=True), ("nabirds", "cub"), ("cub", "nabirds")],
)
def test_another_dataset_is_named_by_the_command_that_reads_it(
    conf, copies, cub, published, reader
):
    root = cub if published == "cub" else getattr(copies, published)()
    message = refusal_message(conf, reader, root)
    assert f"this looks like {readers()[published].title}" in message
    assert len(read_advised(message)) == len(dataset.read(conf(published, root)))


@pytest.mark.parametrize("published", OFFICIAL)
def test_a_folder_that_is_refused_names_the_dataset_in_it(copies, cub, published):
    root = cub if published == "cub" else getattr(copies, published)()
    assert recognize_dataset.advice(root, "folder") == (
        f"this looks like {readers()[published].title}: read it with "
        f"{recognize_dataset.command(published, root)}"
    )


@pytest.mark.parametrize("below", ["images", "."])
def test_a_folder_with_official_files_gets_a_note(conf, cub, below):
    if below == ".":
        shutil.rmtree(cub / "parts")
        for name in ("001.Black_Gull", "002.Grey_Gull", "003.Red_Wren"):
            (cub / "images" / name).rename(cub / name)
        (cub / "images").rmdir()
    (note,) = [n for n in dataset.read(conf("folder", cub / below)).notes if "official" in n]
    assert note.startswith(f"{cub} holds the official files of CUB-200-2011, which dataset=folder")
    assert recognize_dataset.command("cub", cub) in note


def test_synthetic_birds_and_plain_folders_get_no_note(conf, classes, cub):
    (cub / "generator.json").write_text("{}")
    for root in (cub / "images", classes({"a": 3, "b": 3})):
        assert not any("official" in note for note in dataset.read(conf("folder", root)).notes)


# --- findings of the doctor on a user's own data ---


def test_own_folders_and_tables_have_no_index_files(conf, classes, tmp_path):
    root = classes({"train/a": 2, "train/b": 2, "test/a": 1, "test/c": 1})
    table = tmp_path / "birds.csv"
    table.write_text("path,label,split\nmoths/train/a/0.jpg,a,test\nmoths/train/b/0.jpg,b,train\n")
    torn = tmp_path / "torn.csv"
    torn.write_text("path,label\n")
    cases = [
        conf("folder", root),
        conf("folder", tmp_path / "nowhere"),
        conf("table", tmp_path, table=str(table)),
        conf("table", tmp_path, table=str(torn)),
    ]
    for chosen in cases:
        examined = examine(chosen, 1, silent)
        assert examined.wrong
        for finding in examined.findings:
            assert "index" not in finding.message + finding.fix, finding
            assert "official" not in finding.message + finding.fix, finding


def test_the_verdict_of_stanford_dogs_names_imagenet(conf, copies):
    examined = examine(conf("dogs", copies.dogs()), 1, silent)
    title = _title(examined)
    assert title.startswith("dogs: SOUND; all images, test too, are in ImageNet-1k's training set")
    assert examined.plain()["caveat"] == examined.caveat
    assert _title(replace(examined, caveat=None)) == "dogs: SOUND"


@pytest.mark.fault(52)
def test_a_pipe_among_the_images_does_not_hold_up_the_doctor(conf, cub):
    file = next((cub / "images").rglob("*.jpg"))
    file.unlink()
    os.mkfifo(file)
    examined = examine(conf("cub", cub), 2, silent)
    assert [f.check for f in examined.findings] == ["pictures"]
    assert "a pipe, socket or device instead of a file" in examined.findings[0].message


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "name", ["it's", 'a "b" c', "back\\slash x", "end \\", 'q\\"', "$HOME ${x}"]
)
def test_a_command_survives_the_shell_and_hydra(name):
    message = recognize_dataset.command("folder", Path("/data", name))
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {message}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    root = OverridesParser.create().parse_override(words[1]).value()
    assert words[0] == "dataset=folder"
    assert OmegaConf.create([root])[0] == f"/data/{name}"  # as the config holds it
