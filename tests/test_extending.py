"""docs/extending.md: its files in a copy of the checkout, and its commands on a small dataset."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = re.findall(r'```\w+ title="(end of )?(\S+)"\n(.*?)```', PAGE, re.DOTALL)
COMMANDS = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
BREEDS = ("Abyssinian", "Bengal", "boxer")
LISTS = {"trainval.txt": range(3), "test.txt": range(3, 5)}  # the images of each breed


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the checkout with the files of the page, and a small dataset for its reader."""
    tree = tmp_path_factory.mktemp("checkout")
    for name in ("fgvc", "conf"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for at_end, name, text in FILES:
        file = tree / name
        assert file.exists() == bool(at_end), name
        file.write_text(f"{file.read_text()}\n\n{text}" if at_end else text)
    writers = tree / "fgvc/record/writers/__init__.py"
    text = writers.read_text().replace("    files.PAGE,", "    mistakes.WRITER,\n    files.PAGE,")
    writers.write_text(text.replace("fiftyone, files,", "fiftyone, files, mistakes,"))
    _write_pets(tree / "data" / "pets")
    return tree


def _write_pets(root: Path) -> None:
    for folder in ("annotations", "images"):
        (root / folder).mkdir(parents=True)
    for file, numbers in LISTS.items():
        rows = ["#Image CLASS-ID SPECIES BREED ID"]
        for index, breed in enumerate(BREEDS):
            for number in numbers:
                picture = Image.new("RGB", (80, 70), (90 * index, 9 * number, 60))
                picture.save(root / "images" / f"{breed}_{number}.jpg")
                rows.append(f"{breed}_{number} {index + 1} 1 1")
        (root / "annotations" / file).write_text("\n".join(rows))


def run_command(checkout: Path, start: str, *overrides: str) -> str:
    """Run the command of the page with this start in the copy; returns its output."""
    (command,) = (line for line in COMMANDS if line.startswith(f"python -m fgvc.run {start}"))
    words = [sys.executable, *shlex.split(command)[1:], *overrides]
    env = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{ROOT}"}
    done = subprocess.run(words, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_head_a_dataset_a_backbone_and_a_writer_of_the_page_make_a_record(checkout):
    run_command(
        checkout,
        "head=centroid",
        *("dataset.partial=true", "dataset.val_fraction=0", "backbone.pretrained=false"),
        *("resolution.side=64", "resolution.name=r64", "runtime.num_workers=0"),
    )
    (checkpoint,) = checkout.glob("outputs/*/*/*/ckpt.bin")
    config, metrics = (
        json.loads((checkpoint.parent / name).read_text())
        for name in ("config.canonical.json", "metrics.json")
    )
    assert config["head"] == {"name": "centroid", "scale": 0.01}
    assert config["dataset"]["reader"] == "pets"
    assert config["backbone"]["checkpoint"]["model"] == "deit3_base_patch16_224"
    assert metrics["test"]["top1"] > 0.5  # a colour per breed
    mistakes = (checkpoint.parent / "mistakes.txt").read_text().splitlines()
    assert len(mistakes) == round(6 * (1 - metrics["test"]["top1"]))


@pytest.mark.slow
def test_the_doctor_knows_the_definition_of_the_dataset(checkout):
    out = run_command(checkout, "task=doctor", "dataset.partial=true")
    assert "3 of 37 classes" in out


def test_the_task_of_the_page_prints_its_table(checkout):
    out = run_command(checkout, "task=census", "task.classes=2")
    assert "Abyssinian" in out
    assert "boxer" not in out


def test_every_command_of_the_page_is_run():
    assert len(COMMANDS) == 3
