"""Prune removes expired items only, reports why others stay, and survives a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fgvc.record import retention
from fgvc.record.run_dir import now, write_status
from fgvc.report.prune import TRASH, OutputRoot
from fgvc.run import main
from fgvc.store.file_lock import LockHeld, lock
from fgvc.store.hashing import sha256_file
from fgvc.types import UserError

MADE = datetime(2026, 2, 1, tzinfo=UTC)
NOW = MADE + timedelta(days=100)
OLD, YOUNG = MADE, NOW - timedelta(days=89)
HEX = "0123456789abcdef"


@pytest.fixture
def root(tmp_path):
    """An output root with a space, `=` and a decomposed umlaut in its path."""
    folder = tmp_path / "out = u\u0308"
    folder.mkdir()
    return folder


def run(root: Path, run_id: str, created: datetime = OLD, days: int = 90, files: int = 3) -> Path:
    folder = root / run_id / HEX / HEX[::-1]
    (folder / "tb").mkdir(parents=True)
    for number in range(files):
        (folder / "tb" / f"{number}").write_text(f"{number}")
    write_status(folder, "done", created, updated=created)
    retention.write(folder / retention.FILE, retention.new_retention(created, days, name(run_id)))
    return folder


def write_stopped_run(root: Path, run_id: str, at: datetime, state: str = "preempted") -> Path:
    folder = root / run_id / HEX / "in-progress"
    (folder / "resume").mkdir(parents=True)
    (folder / "resume" / "state").touch()
    write_status(folder, state, at)
    plain = json.loads((folder / "status.json").read_text())
    del plain["checksum"]
    plain["updated"] = at.isoformat()
    _sealed(folder / "status.json", plain)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (at.timestamp(), at.timestamp()))
    return folder


def _sealed(file: Path, plain: dict) -> None:
    from fgvc.store import atomic, hashing

    plain["checksum"] = hashing.sha256_bytes(hashing.canonical_json(plain))
    atomic.write_json(file, plain)


def table(root: Path, created: datetime, *folders: Path, stem: str = "baselines") -> None:
    rows = [{"folder": ["/".join(folder.parts[-3:])]} for folder in folders]
    (root / f"{stem}.json").write_text(json.dumps({"rows": rows}))
    (root / f"{stem}.html").touch()
    of = sha256_file(root / f"{stem}.json")
    retention.write(root / f"{stem}.retention.json", retention.new_retention(created, 90, of))


def decisions(root: Path, moment: datetime = NOW) -> dict[str, tuple[bool, str]]:
    return {item.name: item.decision for item in OutputRoot(root, moment, 90).survey()}


def pruned(root: Path, moment: datetime = NOW) -> list[str]:
    place = OutputRoot(root, moment, 90)
    return [item.name for item in place.remove(place.survey())]


def name(run_id: str, last: str = HEX[::-1]) -> str:
    return f"{run_id}/{HEX}/{last}"


def test_only_expired_runs_are_removed(root):
    expired, young, longer = run(root, "gone"), run(root, "kept", YOUNG), run(root, "l", OLD, 400)
    decision = decisions(root)
    assert decision[name("gone")] == (True, "expired on 2026-05-02")
    assert decision[name("kept")] == (False, "kept until 2026-05-13 00:00 UTC")
    assert not decision[name("l")][0]
    assert pruned(root) == [name("gone")]
    assert [path.exists() for path in (expired, young, longer)] == [False, True, True]
    assert list((root / TRASH).iterdir()) == [root / TRASH / ".lock"]


def test_a_survey_touches_nothing(root):
    run(root, "gone")
    write_stopped_run(root, "stopped", OLD)
    before = sorted(root.rglob("*"))
    decisions(root)
    assert sorted(root.rglob("*")) == before


@pytest.mark.fault(37)
def test_recorded_times_decide_and_a_wrong_clock_keeps(root):
    for run_id, created in (
        ("future", NOW + timedelta(days=1)),
        ("epoch", datetime(1970, 1, 1, tzinfo=UTC)),
        ("short", NOW - timedelta(days=80)),
    ):
        run(root, run_id, created, days=1 if run_id == "short" else 90)
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    decision = decisions(root)
    assert "made in the future" in decision[name("future")][1]
    assert "a clock was wrong" in decision[name("epoch")][1]
    assert "kept until" in decision[name("short")][1]
    assert pruned(root) == []


def test_a_run_without_a_readable_retention_stays(root):
    for run_id, text in (("none", None), ("torn", "{"), ("edited", None)):
        file = run(root, run_id) / retention.FILE
        file.unlink() if run_id == "none" else file.write_text(text or file.read_text() + " ")
    decision = decisions(root)
    assert decision[name("none")] == (False, "retention.json: missing")
    assert "damaged" in decision[name("torn")][1]
    assert "not as it was written" in decision[name("edited")][1]
    assert pruned(root) == []


@pytest.mark.fault(37)
def test_pinned_and_running_runs_stay(root):
    retention.pin(run(root, "pinned") / retention.FILE, "release 1")
    busy = run(root, "busy")
    with lock(busy.parent / ".lock"):
        assert decisions(root)[name("pinned")] == (False, "pinned by release 1")
        assert "running: " in decisions(root)[name("busy")][1]
        assert pruned(root) == []
    assert pruned(root) == [name("busy")]


@pytest.mark.fault(37)
@pytest.mark.parametrize("change", ["pinned", "running"])
def test_what_changes_between_the_survey_and_the_removal_stays(root, change):
    folder = run(root, "a")
    place = OutputRoot(root, NOW, 90)
    items = place.survey()
    assert items[0].decision.remove
    if change == "pinned":
        retention.pin(folder / retention.FILE, "late")
        assert place.remove(items) == []
    else:
        with lock(folder.parent / ".lock"):
            assert place.remove(items) == []
    assert (folder / "tb" / "0").exists()


def test_a_stopped_run_stays_resumable_for_the_same_time(root):
    write_stopped_run(root, "young", YOUNG)
    old, killed = (
        write_stopped_run(root, "old", OLD),
        write_stopped_run(root, "killed", OLD, "running"),
    )
    (killed / "resume" / "newer").touch()  # written long after its status
    os.utime(killed / "resume" / "newer", (YOUNG.timestamp(), YOUNG.timestamp()))
    decision = decisions(root)
    assert decision[name("young", "in-progress")][1].startswith("preempted, resumable: kept until")
    assert decision[name("killed", "in-progress")][1].startswith("running, resumable: kept until")
    assert pruned(root) == [name("old", "in-progress")]
    assert not old.exists()


def test_resume_states_of_a_complete_run_are_removed(root):
    folder = run(root, "a", YOUNG)
    (folder.parent / ".resume").mkdir()
    assert pruned(root) == [name("a", ".resume")]


def test_runs_of_a_table_that_is_kept_stay(root):
    young, old, alone = run(root, "young"), run(root, "old"), run(root, "alone")
    (root / "elsewhere").mkdir()
    table(root, NOW - timedelta(days=100), old)
    table(root / "elsewhere", YOUNG, young)
    decision = decisions(root)
    assert decision[name("young")] == (
        False,
        "in baselines.json, kept until 2026-05-13 00:00 UTC",
    )
    assert decision["baselines.*"] == (False, "the current table")
    assert pruned(root) == [name("alone"), name("old")]
    assert not alone.exists()


def test_an_expired_dated_table_is_removed_whole(root):
    for stem, created in (("20260201T000000000000Z", OLD), ("20260301T000000000000Z", YOUNG)):
        table(root, created, stem=f"baselines-{stem}")
    assert pruned(root) == ["baselines-20260201T000000000000Z.*"]
    remaining = sorted(path.suffix for path in root.glob("baselines-*"))
    assert remaining == [".html", ".json", ".json"]


def test_the_folder_of_older_tables_is_judged_table_by_table(root):
    """Also below a folder that task.output= names; the folder itself is no foreign file."""
    kept = run(root, "kept")
    older = [folder / "baselines" for folder in (root, root / "elsewhere")]
    for folder, created in zip(older, (YOUNG, OLD), strict=True):
        folder.mkdir(parents=True)
        table(folder, created, kept, stem=f"baselines-{created:%Y%m%dT%H%M%S%fZ}")
    decision = decisions(root)
    assert decision[f"baselines/baselines-{YOUNG:%Y%m%dT%H%M%S%fZ}.*"][0] is False
    assert decision[f"elsewhere/baselines/baselines-{OLD:%Y%m%dT%H%M%S%fZ}.*"][0] is True
    assert "baselines" not in decision
    assert decision[name("kept")][1].startswith("in baselines-")
    assert len([item for item in OutputRoot(root, NOW, 90).survey() if ".*" in item.name]) == 2


def test_an_unreadable_table_stops_the_prune(root):
    folder = run(root, "a")
    (root / "baselines.json").write_text("[")
    with pytest.raises(UserError, match=r"baselines\.json: ") as caught:
        decisions(root)
    assert "\n" not in str(caught.value)
    assert folder.exists()


@pytest.mark.fault(37)
def test_links_and_foreign_files_stay_and_nothing_outside_is_touched(root, tmp_path):
    outside = run(tmp_path / "outside", "o")
    (root / "linked").symlink_to(outside.parents[1])
    (root / "half").mkdir()
    (root / "half" / HEX).symlink_to(outside.parent)
    (root / "deep" / HEX).mkdir(parents=True)
    (root / "deep" / HEX / HEX).symlink_to(outside)
    (root / "mine").mkdir()
    (root / "mine" / "photo = é.jpg").touch()
    inside = run(root, "inside")
    (inside / "link").symlink_to(outside)
    decision = decisions(root)
    for item in ("linked", f"half/{HEX}", f"deep/{HEX}/{HEX}"):
        assert decision[item] == (False, "a link, never followed")
    assert decision["mine"] == (False, "neither a run nor a table of fgvc")
    assert pruned(root) == [name("inside")]
    assert (outside / "tb" / "0").exists()
    assert (root / "mine" / "photo = é.jpg").exists()


@pytest.mark.fault(37)
def test_a_linked_trash_is_refused(root, tmp_path):
    (root / TRASH).symlink_to(tmp_path)
    with pytest.raises(UserError, match=r".trash: a link"):
        pruned(root)


@pytest.mark.fault(39)
def test_names_that_differ_in_case_or_form_are_runs_of_their_own(root):
    for old, young in (("Bird", "bird"), ("u\u0308", "\u00fc")):
        run(root, old)
        run(root, young, YOUNG)
    assert sorted(pruned(root)) == [name("Bird"), name("u\u0308")]
    assert (root / "bird" / HEX / HEX[::-1] / "tb" / "0").exists()
    assert (root / "\u00fc" / HEX / HEX[::-1] / "tb" / "0").exists()


def test_two_prunes_do_not_run_at_once(root):
    run(root, "a")
    with lock(root / TRASH / ".lock"), pytest.raises(LockHeld):
        pruned(root)


def is_whole(folder: Path) -> bool:
    return len(list((folder / "tb").iterdir())) == 60 and (folder / retention.FILE).exists()


TOUCHES = {"os.rename", "os.remove", "os.rmdir"}


def remove_and_die(root: Path, items: list, at: int) -> None:
    """Prune; killed before the `at`-th rename or deletion, counted from 0."""
    left = at

    def hook(event: str, _: object) -> None:
        nonlocal left
        if event in TOUCHES:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
    OutputRoot(root, NOW, 90).remove(items)


@pytest.mark.fault(38)
def test_sigkill_at_any_moment_leaves_a_run_whole_or_absent(root, forked, ended):
    runs, files = 3, 60
    drawn = random.Random(0).sample(range(runs, runs * files), 7)
    for attempt, at in enumerate([0, 1, runs, *drawn]):  # before, between and after the renames
        folders = [run(root, f"r{attempt}-{number}", files=files) for number in range(runs)]
        items = OutputRoot(root, NOW, 90).survey()
        ended(forked(lambda items=items, at=at: remove_and_die(root, items, at)))
        assert all(is_whole(folder) for folder in folders if folder.exists())
        remaining = [path for path in (root / TRASH).glob("*") if path.name != ".lock"]
        assert remaining or any(folder.exists() for folder in folders), "it was not cut"
        leftover = [item for item in OutputRoot(root, NOW, 90).survey() if item.home is None]
        assert [item.decision.remove for item in leftover] == [True] * len(remaining)
        pruned(root)
        assert [path for path in (root / TRASH).iterdir() if path.name != ".lock"] == []
        assert not any(folder.exists() for folder in folders)


@pytest.mark.fault(37)
def test_the_command_removes_nothing_by_default(root, capfd):
    young = run(root, "young", now())
    dead = run(root, "dead", now() - timedelta(days=91))
    command = ["task=prune", f"runtime.output_root='{root}'"]
    assert main(command) == 0
    out = capfd.readouterr().out
    assert f"expired {name('dead')}" in out
    assert f"keep    {name('young')}: kept until" in out
    assert "1 expired (" in out
    assert "Nothing was removed" in out
    assert dead.exists()
    assert main([*command, "task.delete=true"]) == 0
    assert "removed 1 of 1" in capfd.readouterr().out
    assert not dead.exists()
    assert young.exists()


def test_the_command_pins_and_unpins(root, capfd):
    folder = run(root, "a", now() - timedelta(days=91))
    command = ["task=prune", f"runtime.output_root='{root}'"]
    assert main([*command, f"run='{folder}'", "task.pin='release 1'"]) == 0
    assert "pinned by release 1" in capfd.readouterr().out
    assert main([*command, "task.delete=true"]) == 0
    assert folder.exists()
    assert main([*command, f"run='{folder}'", "task.unpin='release 1'"]) == 0
    assert main([*command, "task.delete=true"]) == 0
    assert not folder.exists()


@pytest.mark.parametrize("wrong", [["run={}"], ["task.unpin=x", "run={}"]])
def test_invalid_pins_are_one_line(root, capfd, wrong):
    choices = [choice.format(f"'{root}'") for choice in wrong]
    assert main(["task=prune", f"runtime.output_root='{root}'", *choices]) in (1, 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("fgvc: ")
    assert list(root.iterdir()) == []


def test_a_missing_root_is_one_line(tmp_path, capfd):
    assert main(["task=prune", f"runtime.output_root={tmp_path / 'none'}"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "no such folder" in line


@pytest.mark.fault(37)
def test_less_than_90_days_is_refused(tmp_path, capfd):
    assert main(["task=prune", "runtime.retention_days=89"]) == 2
    assert "at least 90" in capfd.readouterr().err
