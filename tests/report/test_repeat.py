"""The command that a job of a sweep prints on its page and in the block for a pull request."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape

from fgvc.record import command_file
from fgvc.report.audit.pull_request_block import render_block
from fgvc.report.audit.record import Record
from fgvc.run import main


def test_the_command_on_the_page_of_a_job_runs_this_job_again(runs, real, tmp_path):
    """Pasted into a shell, with the variables set; then again under its run_id: it is skipped."""
    folder = runs("knn", seed=1, final_fit="train")
    page = unescape(re.sub(r"<[^>]*>", "", (folder / "report.html").read_text()))
    after = page.partition("# the run\n")[2].splitlines()
    assert after[1].startswith("# or the whole sweep")
    assert "head=linear,knn" in after[2].split()
    home = real.parent
    places = {f"{name}_ROOT": home / name.lower() for name in ("CACHE", "DATA", "WEIGHTS")}
    places |= {"OUTPUT_ROOT": tmp_path / "outputs", "MULTIRUN_ROOT": tmp_path / "multirun"}
    typed = "\n".join([*(f"{name}='{place}'" for name, place in places.items()), after[0]])
    script = typed.replace("python -m fgvc.run", "printf '%s\\n'")
    words = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    arguments = words.stdout.splitlines()
    assert "seed=1" in arguments
    assert main([*arguments, "runtime.run_id=again"]) == 0
    again = list((tmp_path / "outputs/again").glob("*/*/env_stamp.json"))
    recorded = json.loads((folder / "env_stamp.json").read_text())
    assert [json.loads(file.read_text())["config_hash"] for file in again] == [
        recorded["config_hash"]
    ]


def test_the_command_in_command_txt_resumes_this_run(runs, real, capsys, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(real.parent / "no-git"))  # as when it ran
    folder = runs("knn", seed=1)
    own, sweep = command_file.split((folder / "command.txt").read_text())
    words = Record(folder).command_words()
    assert own.endswith(f"runtime.run_id={folder.parts[-3]}")
    assert not {"-m", "--multirun"} & {*words}
    assert "head=linear,knn" in (sweep or "")
    assert main(words) == 0
    assert f"complete already: {folder}" in capsys.readouterr().out


def test_the_block_for_a_pull_request_shows_both_commands(runs):
    commands = render_block(Record(runs("knn", seed=1)), []).partition("### Hashes")[0]
    lines = [line for line in commands.splitlines() if "fgvc.run" in line]
    assert lines[0].startswith("python -m fgvc.run ")
    assert "seed=1" in lines[0].split()
    assert lines[1].startswith(f"{command_file.SWEEP}python -m fgvc.run ")
    assert "seed=0,1" in lines[1].split()
