"""task=plan: a document with valid commands, or the unanswered items with reasons."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fgvc.config.compose import config_hash
from fgvc.config.overrides import jobs_of
from fgvc.record import stack_check
from fgvc.record.stack_check import PASSED, Outcome, published
from fgvc.task.plan import next_folder
from tests.narrow import not_none

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(run, tmp_path):
    """plan(*overrides) -> the finished command and the document."""

    def start(*overrides):
        folder = tmp_path / "plans" / str(len(list(tmp_path.glob("plans/*"))))
        ran = run("task=plan", f"task.output={folder}", *overrides, birds=False)
        file = folder / "plan.md"
        return ran, file.read_text() if file.is_file() else ""

    return start


def answer(text: str, key: str) -> str:
    """The text of one item."""
    (section,) = re.findall(rf"\(`{key}`\)\n\n(.*?)(?=\n\n\*\*|\n\n## |\Z)", text, re.DOTALL)
    return section


def hash_of(command: str, **places: object) -> str:
    """The config hash of a command of the document."""
    words = shlex.split(command, comments=True)
    assert words[:3] == ["python", "-m", "fgvc.run"]
    for name, value in places.items():
        words = [word.replace(f"${name}", str(value)) for word in words]
    (job,) = jobs_of(words[3:], multirun=False)
    return config_hash(job.plain)


def test_the_plan_has_every_item_and_its_commands_match_their_hashes(plan, places, tmp_path):
    more = ('task.overrides=["recipe=transfg","task.epochs=2"]', "task.title=Is it so?")
    ran, text = plan("task.plans=train", "backbone=vit_tiny", *more)
    assert ran.code == 0, ran.out + ran.err
    assert text.startswith("# Plan: Is it so?\n")
    assert "NOT ANSWERED" not in text
    hashes = re.findall(r"\b[0-9a-f]{64}\b", answer(text, "configs"))
    block = answer(text, "commands").split("```")[1].strip().splitlines()
    command = dict(zip(block[::2], block[1::2], strict=True))
    roots = {
        f"{key.upper()}_ROOT": tmp_path
        for key in ("data", "cache", "output", "multirun", "weights")
    }
    experiment, baseline = command["# the experiment"], command["# the linear-probe baseline"]
    assert [hash_of(experiment, **roots), hash_of(baseline, **roots)] == hashes
    assert {"task=train", "recipe=transfg", "task.epochs=2"} <= set(shlex.split(experiment))
    assert {"task=probe", "head=linear", "final_fit=train"} <= set(shlex.split(baseline))
    assert hashes[0][:16] in command["# audit of the record"]
    for place in places:
        assert place.partition("=")[2] not in text, "a path of this machine is told"


def test_a_second_plan_differs_only_in_its_stamp(plan):
    first, second = (plan("backbone=vit_tiny")[1] for _ in range(2))
    cut = re.compile("<!-- stamp -->.*<!-- /stamp -->", re.DOTALL)
    assert cut.sub("", first) == cut.sub("", second)
    assert "requirements_checksum" in not_none(cut.search(first))[0]
    assert "# the linear-probe baseline" not in first  # it is the experiment itself


def test_a_modern_backbone_on_a_stack_that_was_not_checked_is_named(plan, tmp_path, monkeypatch):
    cache = f"runtime.cache_root={tmp_path / 'cache'}"
    monkeypatch.setattr(published, "read_records", lambda _: [])
    ran, text = plan("backbone=dinov2", cache)
    assert ran.code == 1
    assert "NOT ANSWERED: stack, because backbone=dinov2 needs a validated stack" in ran.out
    assert "python -m fgvc.run task=check" in answer(text, "stack")
    assert "**1 NOT ANSWERED**" in text
    passed = stack_check.make_record([Outcome("app", PASSED, 1.0, "published")])
    monkeypatch.setattr(published, "read_records", lambda _: [passed])  # of this very environment
    ran, text = plan("backbone=dinov2", cache)
    assert ran.code == 0, ran.out
    assert "| app | passed | published |" in answer(text, "stack")
    stack_check.save(
        tmp_path / "cache", stack_check.make_record([Outcome("app", PASSED, 1.0, "served")])
    )
    ran, text = plan("backbone=dinov2", cache)
    assert ran.code == 0, ran.out
    assert "| app | passed | served |" in answer(text, "stack")


def test_data_that_nobody_approved_licensed_or_counted_is_named(plan, run, copies):
    root = copies.table().parent
    for number in range(6):
        copies.image(f"own/train/a/{number}.jpg", 0)
        copies.image(f"own/test/a/{number}.jpg", 0)
        copies.image(f"own/train/b/{number}.jpg", 1)
        copies.image(f"own/test/b/{number}.jpg", 1)
    data = ("dataset=folder", "dataset.name=own", f'dataset.root="{root / "own"}"')
    ran, text = plan("backbone=vit_tiny", *data)
    assert ran.code == 1
    named = set(re.findall(r"^NOT ANSWERED: ([\w-]+),", ran.out, re.MULTILINE))
    assert named == {"licence", "approval", "counts"}
    assert "set dataset.card.approval=" in answer(text, "approval")
    examined = run("task=doctor", *data, bare=True)
    assert examined.code == 0, examined.out
    card = ("dataset.card.license=CC0-1.0", "dataset.card.approval=by the museum")
    ran, text = plan("backbone=vit_tiny", *data, *card)
    assert ran.code == 0, ran.out
    assert answer(text, "counts").startswith("2 classes, 12 train, 12 test")
    assert str(root) not in text


def test_synthetic_data_needs_an_approval_too(plan):
    ran, _ = plan("backbone=vit_tiny", "dataset.card.approval=none recorded")
    assert ran.code == 1
    assert "NOT ANSWERED: approval" in ran.out


def test_an_invalid_experiment_cannot_be_planned(plan):
    ran, text = plan("backbone=vit_tiny", "task.plans=zero_shot")
    assert ran.code == 2
    assert "no text tower" in ran.err
    assert text == ""


def test_plans_are_numbered_consecutively(tmp_path):
    assert next_folder(tmp_path, "Probe vit/tiny").name == "001-probe-vit-tiny"
    for name in ("001-x", "007-y", "notes"):
        (tmp_path / name).mkdir()
    assert next_folder(tmp_path, "z").name == "008-z"


def test_a_plan_needs_no_torch():
    code = "import sys, fgvc.task.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_committed_plans_are_complete_and_name_no_machine():
    plans = sorted((ROOT / "specs").glob("*/plan.md"))
    assert plans
    for plan in plans:
        text = plan.read_text(encoding="utf-8")
        assert "NOT ANSWERED" not in text
        machine_paths = re.findall(
            r"(?<![\w.:/])/(?:work|home|tmp|root|Users|mnt|data|opt|var)\b", text
        )
        assert machine_paths == [], f"{plan} tells of a machine"


def test_task_output_may_be_the_file_itself(run, tmp_path):
    file = tmp_path / "new" / "mine.md"
    assert run("task=plan", f"task.output={file}", birds=False).code == 0
    assert file.read_text().startswith("# Plan: ")
    assert [path.name for path in file.parent.iterdir()] == [file.name]
