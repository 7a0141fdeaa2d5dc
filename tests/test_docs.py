"""README.md and docs/: commands run, keys exist, messages are printed, the site builds.

The commands run as written, in a folder that holds the files they name (`workplace`). An experiment
is only planned (runtime.dry_run=true), because its real run is the subject of other tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from omegaconf import OmegaConf

from fgvc.config.compose import composed
from fgvc.config.overrides import options
from fgvc.config.schema.task import TASKS
from fgvc.run import main
from tests.jobs import MINI
from tests.test_habits import FENCE, anchors, make_targets

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TITLED = re.compile(r'```yaml title="(\w+\.yaml)"\n(.*?)```', re.DOTALL)
FGVC = "python -m fgvc.run"
# other programs of the pages, and a file that each needs
PROGRAMS = {"conda": "environment.yml", "source": "Makefile", "eval": "pyproject.toml"}
RunCommand = Callable[..., tuple[int, str]]
EXPERIMENTS = {"probe", "zero_shot", "train"}
SERVERS = {"check", "view"}  # they start FiftyOne; other tests run them
FAILS = (  # commands that exit with 1, as their page says
    "task=doctor dataset=cub",  # the copy of the workplace is incomplete
    "task=plan task.plans=train backbone=dinov2 dataset=cub task.output=plan.md",
    "task=compare run=outputs/A against=outputs/OTHER_CROP",
)
SMALL = (*MINI, "head=knn", "head.k=1", "resolution.side=64", "resolution.name=r64")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(text_of(page)) if name == language]


def commands(page: str) -> list[str]:
    """The commands of a page, with continued lines joined, without comments."""
    code = "".join(blocks(page, "bash")).replace("\\\n", " ")
    return [line for line in code.splitlines() if words_of(line)]


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)


# --- a folder with the files that the commands name ---


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, birds, shared_places) -> Path:
    """The folder in which the commands of the pages run."""
    here = tmp_path_factory.mktemp("workplace")
    (here / "data").mkdir()
    for link in ("CUB_200_2011", "data/cub"):
        (here / link).symlink_to(birds)
    images = sorted((birds / "images").glob("*/*.jpg"))
    shutil.copy(images[0], here / "bird.jpg")
    rows = ["path,label,split"]
    for part, numbers in (("train", range(2, 10)), ("test", range(10, 13))):
        for folder in sorted((birds / "images").iterdir())[:3]:
            target = here / "birds" / part / folder.name
            target.mkdir(parents=True)
            for image in sorted(folder.glob("*.jpg"))[numbers.start : numbers.stop]:
                shutil.copy(image, target)
                rows.append(f"birds/{part}/{folder.name}/{image.name},{folder.name},{part}")
    (here / "birds.csv").write_text("\n".join(rows))
    (here / "wren.jpg").write_bytes((here / "bird.jpg").read_bytes()[:900])
    damaged = [row.replace(rows[1].partition(",")[0], "wren.jpg") for row in rows]
    (here / "damaged.csv").write_text("\n".join(damaged))
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(model.state_dict(), here / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth")
    (here / "bin").mkdir()
    (here / "bin/sbatch").write_text("#!/bin/sh\nexit 1\n")  # a plan only looks for the program
    (here / "bin/sbatch").chmod(0o755)
    for page in PAGES:
        for title, text in re.findall(
            r'```yaml title="(\w+\.yaml)"\n(.*?)```', text_of(page), re.S
        ):
            (here / title).write_text(text)
    (here / "multirun/RUN_ID").mkdir(parents=True)
    best = "# @package _global_\ndefaults:\n  - override /task: train\ntask:\n  epochs: 3\n"
    (here / "multirun/RUN_ID/best.yaml").write_text(best)
    return here


@pytest.fixture
def run_in(workplace, shared_places, monkeypatch, capfd) -> RunCommand:
    """Run the words of a command in the workplace -> its exit code and everything it printed."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("FGVC_CACHE", str(shared_places["cache"]))
    monkeypatch.setenv("PATH", f"{workplace / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def start(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(words)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return start


@pytest.fixture
def records(workplace, run_in) -> None:
    """The runs outputs/A, outputs/B and, with another crop, outputs/OTHER_CROP."""
    data = ("dataset=folder", "dataset.root=birds", "runtime.num_workers=0")
    for run_id, *more in (("A",), ("B", "seed=1"), ("OTHER_CROP", "preprocess=native")):
        if not (workplace / "outputs" / run_id).exists():
            code, printed = run_in(*SMALL, *data, f"runtime.run_id={run_id}", *more)
            assert code == 0, printed


# --- commands ---


def _run_fgvc(words: list[str], run_in: RunCommand) -> None:
    tasks = [word.partition("=")[2] for word in words if word.startswith("task=")]
    is_experiment = not tasks or tasks[0] in EXPERIMENTS
    dry = "runtime.dry_run=true"
    if (is_experiment or tasks[0] in SERVERS) and "--cfg" not in words and dry not in words:
        words = [*words, dry]
    code, printed = run_in(*words)
    assert code == int(" ".join(words) in FAILS), f"{' '.join(words)}: {printed}"
    assert "Traceback" not in printed


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_run(page, run_in, records):
    if page == "docs/extending.md":  # tests/test_extending.py runs them in a copy of the checkout
        return
    for command in commands(page):
        words = words_of(command)
        if command.startswith(FGVC):
            _run_fgvc(words[3:], run_in)
        elif words[0] == "torchrun":
            _run_fgvc(words[words.index("fgvc.run") + 1 :], run_in)
        elif words[0] == "make":
            assert words[1] in make_targets(), command
        elif words[0] in PROGRAMS:
            assert (ROOT / PROGRAMS[words[0]]).is_file(), command
        else:
            assert shutil.which(words[0], path=str(Path(sys.executable).parent)), command


def test_every_block_states_its_language():
    languages = {name for page in PAGES for name, _ in BLOCK.findall(text_of(page))}
    assert languages == {"bash", "console", "python", "yaml", ""}
    unlabelled = [code for page in PAGES for code in blocks(page, "")]
    assert not [code for code in unlabelled if re.search(r"^(python|make|git|\$) ", code, re.M)]


# --- keys and files that the prose names ---


def _known_keys() -> set[str]:
    """Every key of every config, with the options of each task, head and recipe."""
    keys: set[str] = set()

    def add(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                keys.add(f"{prefix}{name}")
                add(value, f"{prefix}{name}.")

    groups = {"task": TASKS, "head": (path.stem for path in (ROOT / "conf/head").glob("*.yaml"))}
    for group, names in groups.items():
        for name in names:
            add({group: yaml.safe_load((ROOT / f"conf/{group}/{name}.yaml").read_text())}, "")
    add(yaml.safe_load((ROOT / "conf/recipe/modern.yaml").read_text()), "")
    for overrides in ([], ["part_attention=transfg"], ["task=train"]):
        add(OmegaConf.to_container(composed(overrides)), "")
    launchers = (ROOT / "conf/hydra/launcher").glob("*.yaml")
    for path in launchers:
        add({"hydra": {"launcher": yaml.safe_load(path.read_text())}}, "")
    return keys


AXES = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
FOREIGN = {"model", "fit"}  # a word of other tools; an argument in Python
PLACEHOLDERS = {"backbone.checkpoints.NAME"}
HYDRA = {"hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler", "hydra.searchpath"}


def test_every_key_in_the_prose_exists():
    known = _known_keys() | AXES | HYDRA | FOREIGN | PLACEHOLDERS
    named: dict[str, str] = {}
    for page in PAGES:
        for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(page))):
            for key in re.findall(r"(?:^|[ '\[])([a-z][\w/.]*)=(?![=<])", span):
                named[key] = f"{page}: `{span}`"
            if re.fullmatch(r"(?:runtime|dataset|backbone|task|head|part_attention)\.\w+", span):
                named[span] = f"{page}: `{span}`"
    assert len(named) >= 50
    assert {key: place for key, place in named.items() if key not in known} == {}


OPTION_TABLES = {  # group -> the page with a table of its options
    "dataset": "docs/datasets.md",
    "head": "docs/heads.md",
    "part_attention": "docs/part-attention.md",
    "recipe": "docs/finetuning.md",
    "sweep": "docs/sweeps.md",
}


@pytest.mark.parametrize("group", OPTION_TABLES)
def test_a_page_lists_every_option(group):
    page = text_of(OPTION_TABLES[group])
    missing = [name for name in options(group) if not re.search(rf"`({group}=)?{name}`", page)]
    assert missing == []


def test_the_page_of_the_backbones_lists_every_family():
    families = {path.stem for path in (ROOT / "fgvc/model/backbone/checkpoints").glob("*.yaml")}
    page = text_of("docs/backbones.md")
    assert families
    assert [name for name in sorted(families) if f"| `{name}`" not in page] == []
    readme = text_of("README.md")
    for name in (*sorted(families), *options("head"), *options("dataset")):
        assert f"`{name}`" in readme


# --- messages ---


def collapsed(text: str) -> str:
    return " ".join(text.split())


MESSAGES = [collapsed(code) for page in PAGES for code in blocks(page, "console")]


@pytest.mark.parametrize(
    "block", MESSAGES, ids=lambda block: re.split(r" (?:fgvc|note): ", block)[0][2:]
)
def test_a_message_is_printed_as_the_page_says(block, run_in, records):
    """A block is `$ command` and then a message, which starts with `fgvc:` or `note:`."""
    command, start, message = re.split(r" (fgvc:|note:) ", block, maxsplit=1)
    assert command.startswith(f"$ {FGVC} ")
    _, printed = run_in(*words_of(command)[4:])
    pattern = ".*".join(map(re.escape, f"{start} {message}".split("…")))
    assert re.search(pattern, collapsed(printed)), printed


# --- the site ---


def test_the_pages_refer_to_files_and_headings_that_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.is_file(), f"{page} links to {link}"
            name = target.resolve().relative_to(ROOT).as_posix()
            assert not anchor or anchor in anchors(name), f"{page} links to {link}"


def test_readme_fits_and_links_every_page():
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 150
    missing = [page for page in PAGES if page not in ("README.md", "docs/index.md")]
    assert [page for page in missing if f"]({page}" not in readme] == []
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in PAGES[1:] if f" {Path(page).name}\n" not in navigation] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        mkdocs,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_opens_as_files_and_requests_nothing_else(site, opened):
    assert {path.stem for path in site.glob("*.html")} >= {Path(page).stem for page in PAGES[1:]}
    window = opened(site / "statistics.html")
    assert window.page.locator("h1").inner_text().startswith("Statistics")
    assert window.overflow() == 0
    window.page.locator("input.md-search__input").click()
    window.page.locator("input.md-search__input").press_sequentially("sign-flip")
    window.page.locator(".md-search-result__item").first.wait_for()
    assert window.console == []
    assert [url for url in window.requests if not url.startswith("file:")] == []
